//! The body of a response that is made from a table.

use std::rc::Rc;

use crate::admin::page::{Page, Step};
use crate::nginx::conf::table::TableConf;
use crate::nginx::ffi::stream::Source;

/// A page, and the table that it reads.
pub(super) struct TableBody<P: Page> {
    page: P,
    conf: Rc<TableConf>,
}

impl<P: Page> TableBody<P> {
    pub fn new(page: P, conf: Rc<TableConf>) -> Self {
        Self { page, conf }
    }
}

impl<P: Page> Drop for TableBody<P> {
    fn drop(&mut self) {
        if let Some(table) = self.conf.table.get() {
            self.page.release(table);
        }
    }
}

impl<P: Page> Source for TableBody<P> {
    fn step(&mut self, chunk: &mut Vec<u8>) -> Option<Step> {
        let mut worker = self.conf.worker.try_borrow_mut().ok()?;
        Some(self.page.step(self.conf.table.get()?, &mut worker.scratch, chunk))
    }

    fn known_length(&self) -> Option<usize> {
        self.page.known_length()
    }
}
