//! Programs of counts.h: the same behaviour with and without the library, each of their blocks in
//! the record, in order, and a report that says the same.

use super::{
    Counts, FORMATS, Folder, Format, Recorded, Run, clean_command, mtr_report, printed_counts,
};
use std::path::{Path, PathBuf};

/// A program and how it is to be run.
pub(crate) struct Hazard<'a> {
    pub(crate) program: &'a Path,
    pub(crate) arguments: &'a [&'a str],
    /// Preloaded too, behind libmtr.so and without it.
    pub(crate) preload: Option<PathBuf>,
    /// Its output is the same each time.
    pub(crate) is_deterministic: bool,
}

impl<'a> Hazard<'a> {
    pub(crate) fn new(program: &'a Path, arguments: &'a [&'a str]) -> Self {
        Hazard { program, arguments, preload: None, is_deterministic: true }
    }

    pub(crate) fn preload(self, library: &Path) -> Self {
        Hazard { preload: Some(library.to_owned()), ..self }
    }

    /// What it prints depends on when signals or other threads come.
    pub(crate) fn differs_by_run(self) -> Self {
        Hazard { is_deterministic: false, ..self }
    }

    /// Runs it without the library, then in each format.
    #[track_caller]
    pub(crate) fn run(&self, folder: &Folder) -> Vec<(Format, Run)> {
        let mut plain = clean_command(self.program);
        plain.args(self.arguments).current_dir(folder.path());
        if let Some(library) = &self.preload {
            plain.env("LD_PRELOAD", library);
        }
        let plain = plain.output().unwrap();
        let traced = FORMATS.map(|format| {
            let mut traced = format.traced(folder, self.program).args(self.arguments);
            if let Some(library) = &self.preload {
                traced = traced.preload_after(library);
            }
            let run = traced.run();
            let what = format!("{format:?}: {}\nwithout: {plain:?}", run.description());
            assert_eq!(run.output.status, plain.status, "{what}");
            assert_eq!(run.output.stderr, plain.stderr, "{what}");
            if self.is_deterministic {
                assert_eq!(run.output.stdout, plain.stdout, "{what}");
            }
            (format, run)
        });
        traced.into()
    }

    /// [`Hazard::run`], and what was recorded is what the program has counted.
    #[track_caller]
    pub(crate) fn is_recorded(&self, folder: &Folder) {
        for (format, run) in self.run(folder) {
            let recorded = Recorded::of(format, &run);
            recorded.is_finished();
            let printed = printed_counts(&run.stdout());
            assert!(!printed.is_empty(), "{}", run.description());
            assert_same(&recorded.own_counts(), &printed, &run);
            the_report_agrees(&recorded);
        }
    }
}

#[track_caller]
fn assert_same(recorded: &Counts, printed: &Counts, run: &Run) {
    assert!(
        recorded == printed,
        "{recorded:?} recorded, counted: {printed:?}: {}",
        run.description()
    );
}

/// mtr-report says what the tests' own reader does.
#[track_caller]
pub(crate) fn the_report_agrees(recorded: &Recorded) {
    let report = mtr_report([recorded.path()]).without_faults();
    assert_eq!(report.summary(), recorded.summary(), "{}", report.description());
}
