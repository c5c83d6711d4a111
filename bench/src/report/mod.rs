//! Reports of the results: a summary, a page for each protocol, charts, and the table in the terminal. All are generated.

mod chart;
mod figures;
mod generators;
mod machine;
mod page;
mod profiles;
mod summary;
pub(crate) mod table;
mod targets;

use std::path::Path;

use anyhow::Result;

use crate::results::{FOLDER, Results};
pub(crate) use figures::number;

/// Writes the JSON, the pages and the charts; a dry run writes nothing.
pub(crate) fn save(results: &mut Results, root: &Path) -> Result<()> {
    results.count_steal();
    if results.dry {
        return Ok(());
    }
    results.write(root)?;
    let folder = root.join(FOLDER);
    summary::write(results, &folder)?;
    page::write(results, &folder)?;
    targets::write(results, &folder)?;
    generators::write(results, &folder)?;
    profiles::write(results, &folder)
}
