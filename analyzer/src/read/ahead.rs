//! Reading on a thread of its own, so that it goes on while the events are replayed.

use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::{mem, thread};

use super::{Event, Log, read};
use crate::error::Error;

/// Events handed over at once: enough to make the hand-over cheap, few enough to stay in the cache.
const BATCH: usize = 4096;
/// Batches that may wait; with those that either thread holds, all the memory that this costs.
const WAITING: usize = 4;

/// As [`read`], with the reading on another thread. `each` is called on this one.
pub fn read_ahead(path: &Path, mut each: impl FnMut(Event)) -> Result<Log, Error> {
    thread::scope(|scope| {
        let (send, receive) = sync_channel::<Vec<Event>>(WAITING);
        let (give_back, empty) = sync_channel::<Vec<Event>>(WAITING + 2);
        let reader = scope.spawn(move || {
            let mut batch = Vec::with_capacity(BATCH);
            // The receiver goes last, so nothing can fail to be sent.
            let log = read(path, |event| {
                batch.push(event);
                if batch.len() == BATCH {
                    let next = empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(BATCH));
                    let _ = send.send(mem::replace(&mut batch, next));
                }
            });
            let _ = send.send(batch);
            log
        });
        for mut batch in receive {
            batch.drain(..).for_each(&mut each);
            let _ = give_back.try_send(batch);
        }
        reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    #[test]
    fn the_events_are_those_of_reading_at_once_in_their_order() {
        let mut text = String::from("= Start\n");
        for i in 0..3 * BATCH as u64 + 17 {
            writeln!(text, "@ ./t:[{:#x}] + {:#x} {i:#x}", 0x1000 + i % 7, 0x5000 + i * 16)
                .unwrap();
        }
        let log = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(log.path(), text).unwrap();
        let (mut at_once, mut ahead) = (Vec::new(), Vec::new());
        let one = read(log.path(), |event| at_once.push(event)).unwrap();
        let other = read_ahead(log.path(), |event| ahead.push(event)).unwrap();
        assert_eq!(at_once, ahead);
        assert_eq!((one.records, one.lines), (other.records, other.lines));
    }

    #[test]
    fn a_log_that_cannot_be_opened_is_an_error() {
        assert!(read_ahead(Path::new("/nonexistent/log"), |_| {}).is_err());
    }
}
