//! What the numbers of a stream stand for.

/// Definitions by number, from 1 on, in the order in which they were made. Where a chunk is missing,
/// numbers are left out; a damaged trace may leave out any, and should not cost more than its size.
#[derive(Debug)]
pub(super) struct Numbered<T> {
    /// Number of the first of `values`.
    first: u64,
    values: Vec<T>,
    /// The same for what stands before a gap.
    earlier: Vec<(u64, Vec<T>)>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Numbered<T> {
        Numbered { first: 1, values: Vec::new(), earlier: Vec::new() }
    }
}

impl<T: Copy> Numbered<T> {
    #[inline(always)]
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        match u64::from(number).wrapping_sub(self.first) as usize {
            index if index < self.values.len() => self.values.get_mut(index),
            _ => self.get_earlier(number),
        }
    }

    #[cold]
    fn get_earlier(&mut self, number: u32) -> Option<&mut T> {
        let number = u64::from(number);
        let mut earlier = self.earlier.iter_mut().rev();
        let (first, values) = earlier.find(|(first, _)| *first <= number)?;
        values.get_mut((number - *first) as usize)
    }

    /// How many there are, those that are not known included.
    pub(super) fn count(&self) -> u64 {
        self.first - 1 + self.values.len() as u64
    }

    /// The next definition.
    pub(super) fn push(&mut self, value: T) {
        self.values.push(value);
    }

    pub(super) fn forget(&mut self) {
        *self = Numbered::default();
    }

    /// There are `count` of them: those that are missing have not been read.
    pub(super) fn go_on_behind(&mut self, count: u32) {
        let (count, known) = (u64::from(count), self.count());
        if count < known {
            self.forget();
        }
        if count != known {
            let values = std::mem::take(&mut self.values);
            if !values.is_empty() {
                self.earlier.push((self.first, values));
            }
            self.first = count + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_were_not_read_stand_for_nothing() {
        let mut numbered = Numbered::default();
        ["a", "b"].into_iter().for_each(|value| numbered.push(value));
        numbered.go_on_behind(2);
        numbered.push("c");
        numbered.go_on_behind(1_000_000);
        numbered.push("d");
        numbered.go_on_behind(u32::MAX);
        numbered.push("none");
        let mut get = |number| numbered.get_mut(number).copied();
        assert_eq!([1, 2, 3, 1_000_001].map(&mut get), ["a", "b", "c", "d"].map(Some));
        assert_eq!([0, 4, 1_000_000, 1_000_002, u32::MAX].map(&mut get), [None; 5]);
    }

    #[test]
    fn fewer_than_were_known_are_all_new() {
        let mut numbered = Numbered::default();
        (0..5).for_each(|value| numbered.push(value));
        numbered.go_on_behind(2);
        numbered.push(7);
        let mut get = |number| numbered.get_mut(number).copied();
        assert_eq!([1, 2, 3, 4].map(&mut get), [None, None, Some(7), None]);
        numbered.forget();
        numbered.push(8);
        assert_eq!((numbered.get_mut(1).copied(), numbered.count()), (Some(8), 1));
    }
}
