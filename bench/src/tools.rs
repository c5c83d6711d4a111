//! The peers' own load tools, as a second opinion.

use anyhow::Result;

use crate::broker::Places;
use crate::compare::Settings;
use crate::report::results::Results;
use crate::works::Field;

pub(crate) fn run(
    _field: Field,
    _settings: &Settings,
    _places: &Places,
    _results: &mut Results,
) -> Result<()> {
    Ok(())
}
