//! Passwords of the private services, generated once and stored in `<data>/passwords` (mode 600, owned by our user and
//! not by the user of the children). The file is written before the cluster, so a cluster never exists without its
//! passwords.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::account::{read, write_own};
use super::home::Home;

/// Passwords of 32 random bytes each, in URL-safe base64, which needs no quoting in SQL, URLs or configuration.
pub(super) struct Secrets {
    pub(super) admin: String,
    pub(super) owner: String,
    pub(super) app: String,
    pub(super) redis: String,
}

impl Secrets {
    /// Reads the passwords of a data folder; `None` if the file does not exist.
    pub(super) fn find(data: &Path) -> Result<Option<Self>> {
        let path = data.join("passwords");
        let Some(text) = read(&path)? else { return Ok(None) };
        let damaged = || format!("{} is damaged; restore it from a backup", path.display());
        Self::parse(&text).map(Some).with_context(damaged)
    }

    /// Reads the passwords of a data folder, or generates them if the folder has no cluster yet.
    pub(super) fn find_or_generate(home: &Home) -> Result<Self> {
        if let Some(secrets) = Self::find(&home.data)? {
            return Ok(secrets);
        }
        let path = home.data.join("passwords");
        if home.cluster_major()?.is_some() {
            bail!(
                "{} is missing, and the database in the same folder needs it; restore it from a backup",
                path.display()
            );
        }
        let secrets =
            Self { admin: generate()?, owner: generate()?, app: generate()?, redis: generate()? };
        write_own(&path, secrets.text().as_bytes(), 0o600)?;
        Ok(secrets)
    }

    fn text(&self) -> String {
        let Self { admin, owner, app, redis } = self;
        format!("admin={admin}\nowner={owner}\napp={app}\nredis={redis}\n")
    }

    fn parse(text: &str) -> Option<Self> {
        let find = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            (value.len() >= 43 && value.bytes().all(is_plain)).then(|| value.to_owned())
        };
        Some(Self {
            admin: find("admin")?,
            owner: find("owner")?,
            app: find("app")?,
            redis: find("redis")?,
        })
    }
}

fn generate() -> Result<String> {
    Ok(URL_SAFE_NO_PAD.encode(random::<32>()?))
}

/// Returns `N` random bytes from the operating system, suitable for secrets.
pub(super) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| anyhow!("the system returned no random bytes: {error}"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_as_they_were_written_and_nothing_less() {
        let secrets = Secrets {
            admin: generate().unwrap(),
            owner: generate().unwrap(),
            app: generate().unwrap(),
            redis: generate().unwrap(),
        };
        let text = secrets.text();
        assert_eq!(Secrets::parse(&text).unwrap().text(), text);
        let half = text.split_once("app=").unwrap().0;
        assert!(Secrets::parse(half).is_none());
        assert!(Secrets::parse(&text.replace(&secrets.redis, "x'; DROP ROLE postgres")).is_none());
        assert_ne!(secrets.admin, secrets.owner);
    }
}
