//! A build that is under way, as its stages see the build.

use std::path::Path;

use klpx_diagnosis::Note;

use crate::events::Events;
use crate::request::Request;
use crate::results::Results;

/// A build that is under way.
pub(crate) struct Build<'a> {
    pub(crate) request: &'a Request,
    pub(crate) events: &'a dyn Events,
    pub(crate) results: &'a mut Results,
}

impl Build<'_> {
    /// Reports notes and keeps them in the results.
    pub(crate) fn note(&mut self, notes: &[Note]) {
        for note in notes {
            self.events.note(note);
            self.results.notes.push(note.clone());
        }
    }

    /// Reports the folder in which the objects of this run are kept.
    pub(crate) fn kept(&self, folder: &Path) {
        self.events.note(&format!("the objects of this run are in {}", folder.display()));
    }
}
