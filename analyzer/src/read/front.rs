//! The first bytes of a file, by which its kind is told.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use mtr_format::compact::chunk::{ALIGN, HEADER, Header, MARK};

/// Bytes looked at: any two chunks of a trace are as long at most.
pub(super) const FRONT: usize = 64 << 10;

/// As many bytes of `file` from `at` on as there are, or as fit.
pub(super) fn read_at(file: &File, out: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < out.len() {
        match file.read_at(&mut out[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The first position from `at` on that is in no hole of `file`, as far as the file system knows; its
/// end if there is none. A hole may be larger than what can be read in a lifetime.
pub(super) fn behind_hole(file: &File, at: u64) -> io::Result<u64> {
    // SAFETY: lseek has no preconditions. Traces are read at positions, so that of the file is free.
    let found = unsafe { libc::lseek(file.as_raw_fd(), at as libc::off_t, libc::SEEK_DATA) };
    match u64::try_from(found) {
        Ok(found) => Ok(found),
        Err(_) if io::Error::last_os_error().raw_os_error() == Some(libc::ENXIO) => {
            Ok(file.metadata()?.len().max(at))
        }
        Err(_) => Ok(at),
    }
}

/// The front of `file`. Where it begins with a hole (somebody truncated it while it was written),
/// what stands behind the hole; its position there is a multiple of 64.
pub(super) fn of(file: &File) -> io::Result<Vec<u8>> {
    let mut front = vec![0; FRONT];
    let mut position = 0;
    loop {
        let read = read_at(file, &mut front, position)?;
        let first = front[..read].iter().position(|byte| *byte != 0);
        match first {
            Some(first) if position > 0 && first >= ALIGN => {
                let begin = first / ALIGN * ALIGN;
                let read = read_at(file, &mut front, position + begin as u64)?;
                front.truncate(read);
                return Ok(front);
            }
            None if read == FRONT => {
                position += read as u64;
                let last = file.metadata()?.len().saturating_sub(1);
                let next = behind_hole(file, position)?.min(last) / ALIGN as u64 * ALIGN as u64;
                position = position.max(next);
            }
            _ => {
                front.truncate(read);
                return Ok(front);
            }
        }
    }
}

/// The chunk headers that stand in `bytes`, which begin at a multiple of 64, and where.
pub(super) fn chunks_in(bytes: &[u8]) -> impl Iterator<Item = (usize, Header)> {
    (0..bytes.len()).step_by(ALIGN).filter_map(|at| {
        let bytes = bytes[at..].first_chunk::<HEADER>().filter(|bytes| bytes.starts_with(&MARK))?;
        Some((at, Header::parse(bytes)?))
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_hole_at_the_front_is_passed_over() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"front").unwrap();
        assert_eq!(of(&file).unwrap(), b"front");
        file.set_len(0).unwrap();
        file.write_all_at(b"rest", 1_000_010).unwrap();
        let front = of(&file).unwrap();
        assert_eq!(front.len(), 1_000_010 % ALIGN + 4);
        assert!(front.ends_with(b"\0rest"));
    }

    #[test]
    fn a_hole_of_terabytes_is_not_read() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"rest", 8 << 40).unwrap();
        assert!(of(&file).unwrap().starts_with(b"rest"));
        file.set_len(8 << 40).unwrap();
        assert!(of(&file).unwrap().iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_file_of_zeros_is_one() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(of(&file).unwrap(), b"");
        file.set_len(FRONT as u64 + 10).unwrap();
        assert_eq!(of(&file).unwrap(), [0; 10]);
    }
}
