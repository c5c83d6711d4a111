//! `inver store check`: whether the object store of the configuration does what is asked of it.

use anyhow::{Context, bail};
use clap::Subcommand;
use data_encoding::HEXLOWER;
use inver_store::{Checked, Failure, Finding, Refusal, StoreError, check};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::ConfigArgument;
use crate::object_store;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Test the store of the configuration with objects of its own, which it deletes: storing, reading, racing creates,
    /// lists. Exit code 0 if it can be used.
    Check(ConfigArgument),
}

impl Command {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let Command::Check(argument) = self;
        let section = argument.load()?.config.store;
        let store = object_store::open(&section, |name| std::env::var(name).ok())?;
        let store = store.context("there is no store: set `store.bucket` or `store.folder`")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let findings = runtime.block_on(check(store, &folder()?));
        findings.iter().for_each(show);
        let failed = findings.iter().filter(|finding| finding.result.is_err()).count();
        if failed > 0 {
            bail!("the store cannot be used: {failed} of {} checks failed", Checked::ALL.len());
        }
        println!("the store can be used");
        Ok(())
    }
}

/// A folder of the store that no other check uses.
fn folder() -> anyhow::Result<String> {
    let mut random = [0; 8];
    SystemRandom::new().fill(&mut random).ok().context("there are no random numbers")?;
    Ok(format!("check/{}", HEXLOWER.encode(&random)))
}

fn show(Finding { checked, result }: &Finding) {
    let name = checked.name();
    let Err(failure) = result else {
        println!("ok      {name}");
        return;
    };
    let why = match failure {
        Failure::Error(error) => error.to_string(),
        Failure::Wrong(why) => why.clone(),
    };
    println!("failed  {name}: {why}");
    println!("        {}", advice(*checked, failure));
}

/// What to do.
fn advice(checked: Checked, failure: &Failure) -> &'static str {
    match failure {
        Failure::Wrong(_) if matches!(checked, Checked::Create | Checked::RacingCreates) => {
            "the service ignores `If-None-Match: *`, or does not obey it at once: two brokers would both own one log. Use \
             another service, or a newer version of it"
        }
        Failure::Wrong(_) => {
            "the service does not show what it has answered, or reads the request otherwise: use another"
        }
        Failure::Error(error) => match error {
            StoreError::Refused(Refusal::Credentials, _) => {
                "check `store.access_key_id` and its secret, and that the key may get, put and delete objects and list the \
                 bucket; of a folder: who may write to it"
            }
            StoreError::Refused(Refusal::Bucket, _) => {
                "create the bucket, or correct `store.bucket` and `store.endpoint`"
            }
            StoreError::Refused(Refusal::Region, _) => "set `store.region` to the bucket's region",
            StoreError::Refused(Refusal::Clock, _) => "set the clock of this machine",
            StoreError::Refused(Refusal::Request, _)
                if matches!(checked, Checked::Create | Checked::RacingCreates) =>
            {
                "the service does not know `If-None-Match: *`: use another, or a newer version of it"
            }
            StoreError::Refused(..) => {
                "check that an S3 service answers at `store.endpoint`, and `store.path_style`"
            }
            StoreError::Again(_) | StoreError::Conflict(_) | StoreError::Unknown(_) => {
                "check `store.endpoint`, the network and the log of the service; it may be slower than `store.timeout_ms`"
            }
            StoreError::NotFound => "an object that was stored is not there: use another service",
            StoreError::AlreadyExists => "an object that was never stored is there: use another service",
        },
    }
}
