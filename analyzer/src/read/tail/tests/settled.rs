//! A process that loses records while its tail is read.

use super::*;

/// A tail, and its file.
fn tail() -> (tempfile::TempDir, PathBuf, File) {
    let (folder, log) = cut_log(TEXT, 64);
    let path = tail_path(&log);
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    (folder, path, file)
}

fn count(file: &File, lost: u64) {
    file.write_all_at(&lost.to_le_bytes(), layout::LOST as u64).unwrap();
}

#[test]
fn what_is_lost_while_a_tail_is_read_is_not_overlooked() {
    let (_folder, path, file) = tail();
    let mut reads = 0;
    let (fields, found) = settled(&file, &path, |fields| {
        reads += 1;
        // Of what is counted here, this look may have found nothing any more.
        count(&file, 5);
        Ok((fields.loss.records, reads))
    })
    .unwrap();
    assert_eq!((fields.loss.records, found), (5, (5, 2)));
}

#[test]
fn a_process_that_loses_records_all_the_time_is_read_in_the_end() {
    let (_folder, path, file) = tail();
    let mut reads = 0;
    let (fields, ()) = settled(&file, &path, |_| {
        reads += 1;
        count(&file, reads);
        Ok(())
    })
    .unwrap();
    assert!((2..100).contains(&reads), "{reads}");
    assert_eq!(fields.loss.records, reads, "not less than are missing");
}
