//! `inver health`: checks readiness over HTTP. Made for a container's health check, where no other tool exists.

use anyhow::bail;
use hyper::Method;

use super::ConfigArgument;
use super::client::Client;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let client = Client::of(&self.config.load()?.config)?;
        let answer = client.request(Method::GET, "/health/ready", None)?;
        if !answer.status.is_success() {
            bail!("not ready: {}", answer.status);
        }
        println!("ready");
        Ok(())
    }
}
