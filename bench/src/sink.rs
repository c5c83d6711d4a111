//! Something that answers a work's messages with as little as can be done: the load generators' own ceiling.

use anyhow::Result;

use crate::broker::Places;
use crate::compare::Settings;

pub(crate) fn measure(_works: &[String], _settings: &Settings, _places: &Places) -> Result<()> {
    anyhow::bail!("not yet")
}

pub(crate) fn serve(_port: u16) -> Result<()> {
    anyhow::bail!("not yet")
}
