//! `inver health`: checks readiness over HTTP. Made for a container's health check, where no other tool exists.

use anyhow::bail;

use super::{ConfigArgument, request};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let answer = request::send(&self.config.load()?.config, "GET", "/health/ready", None, None)?;
        if !answer.is_ok() {
            bail!("not ready: {}", answer.status);
        }
        println!("ready");
        Ok(())
    }
}
