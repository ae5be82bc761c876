//! What the IDs of a trace stand for.

use mtr_format::compact::word::MAX_ID;

/// IDs in a page. A damaged trace may use any ID, and should not cost more than its size.
const PAGE: usize = 256;

/// A table by ID that has room where IDs are in use.
pub(super) struct Ids<T> {
    pages: Vec<Option<Box<[Option<T>; PAGE]>>>,
}

impl<T> Default for Ids<T> {
    fn default() -> Ids<T> {
        Ids { pages: Vec::new() }
    }
}

impl<T: Copy> Ids<T> {
    #[inline]
    pub(super) fn get(&self, id: u32) -> Option<T> {
        self.pages.get(id as usize / PAGE)?.as_ref()?[id as usize % PAGE]
    }

    pub(super) fn set(&mut self, id: u32, value: T) {
        let page = (id & MAX_ID) as usize / PAGE;
        if page >= self.pages.len() {
            self.pages.resize_with(page + 1, || None);
        }
        let page = self.pages[page].get_or_insert_with(|| Box::new([None; PAGE]));
        page[id as usize % PAGE] = Some(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_may_come_in_any_order() {
        let mut ids = Ids::default();
        for id in [7, MAX_ID, 1, 300] {
            ids.set(id, id * 2);
        }
        assert_eq!(
            [1, 7, 300, MAX_ID].map(|id| ids.get(id)),
            [Some(2), Some(14), Some(600), Some(MAX_ID * 2)]
        );
        assert_eq!([0, 2, 301, 100_000].map(|id| ids.get(id)), [None; 4]);
    }
}
