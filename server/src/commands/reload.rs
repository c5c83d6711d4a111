//! `inver reload`: asks the running broker to read its configuration again, and prints what changed.

use hyper::Method;

use super::client::Reach;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    reach: Reach,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let body = self.reach.client()?.ask_node(Method::POST, "/reload", &[], None)?;
        for (list, word) in [("changed", "changed"), ("needs_restart", "needs a restart")] {
            for change in body[list].as_array().into_iter().flatten() {
                let text = |key: &str| change[key].as_str().unwrap_or_default().to_string();
                println!("{word}: {}: {}", text("key"), text("what"));
            }
        }
        for warning in body["warnings"].as_array().into_iter().flatten() {
            eprintln!("warning: {}", warning.as_str().unwrap_or_default());
        }
        println!("reloaded");
        Ok(())
    }
}
