//! Inspection of a stopped log: a dump of every entry, verification of every checksum, and salvage.
//!
//! Locks the folder, so it refuses a log that is in use. Only [`salvage()`] changes files, and only when told to: it gives
//! up damaged parts so that the rest can be read.

mod folder;
mod salvage;
mod verify;
mod walk;

use std::path::Path;

use self::folder::Folder;
pub use self::salvage::{Loss, salvage};
pub use self::verify::{Flaw, Report, verify};
pub use self::walk::{EntryView, PartSummary};
use self::walk::{Stop, walk};
use crate::error::OpenError;
pub use crate::format::FORMAT_VERSION;
use crate::scan::ScanError;

/// Visits every entry of a stopped log, in the order of the log. Stops at the first damage, which it returns as an error. A
/// torn tail of the last segment is not damage.
pub fn dump(dir: &Path, visit: &mut dyn FnMut(EntryView)) -> Result<(), OpenError> {
    let folder = Folder::open(dir)?;
    for (at, id) in folder.segments.iter().enumerate() {
        let file = folder.file(*id)?;
        let end = folder.entries_end(at, file.as_ref());
        let is_last = at + 1 == folder.segments.len();
        match walk(*id, file.as_ref(), end, &mut |view, _| visit(view)) {
            Ok(_) => {}
            Err(Stop { error: ScanError::Flaw { .. }, is_torn: true, .. }) if is_last => {}
            Err(stop) => return Err(stop.error.in_file(&id.file_name())),
        }
    }
    Ok(())
}
