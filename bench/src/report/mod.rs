//! What was found: kept as JSON, shown as a table, a page and charts. Nothing in the page is typed in.

mod chart;
mod figures;
mod loads;
mod machine;
mod page;
mod profiles;
pub(crate) mod table;
mod wanted;

use std::path::Path;

use anyhow::Result;

use crate::results::{FOLDER, Results};
pub(crate) use figures::number;

/// Writes the JSON, the page and its charts; a dry run writes nothing.
pub(crate) fn save(results: &mut Results, root: &Path) -> Result<()> {
    results.count_steal();
    if results.dry {
        return Ok(());
    }
    results.write(root)?;
    page::write(results, &root.join(FOLDER))?;
    profiles::write(results, &root.join(FOLDER))
}
