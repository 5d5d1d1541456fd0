//! Passwords of the private services, generated once and stored in `<data>/passwords` (mode 600, owned by us and not by
//! the children). The file is on disk before the cluster, so a cluster never exists without its passwords.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::account::{read, write_own};
use super::home::Home;

/// Passwords of 32 random bytes each, in URL-safe base64. They need no quoting in SQL, URLs or configuration.
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

    /// Reads the passwords of a home, or generates them if there is no cluster yet.
    pub(super) fn find_or_make(home: &Home) -> Result<Self> {
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
        let secrets = Self { admin: make()?, owner: make()?, app: make()?, redis: make()? };
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
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            (value.len() >= 43 && value.bytes().all(plain)).then(|| value.to_owned())
        };
        Some(Self {
            admin: find("admin")?,
            owner: find("owner")?,
            app: find("app")?,
            redis: find("redis")?,
        })
    }
}

fn make() -> Result<String> {
    Ok(URL_SAFE_NO_PAD.encode(random::<32>()?))
}

/// Returns random bytes from the system, fit for secrets.
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
        let made = Secrets {
            admin: make().unwrap(),
            owner: make().unwrap(),
            app: make().unwrap(),
            redis: make().unwrap(),
        };
        let text = made.text();
        assert_eq!(Secrets::parse(&text).unwrap().text(), text);
        let half = text.split_once("app=").unwrap().0;
        assert!(Secrets::parse(half).is_none());
        assert!(Secrets::parse(&text.replace(&made.redis, "x'; DROP ROLE postgres")).is_none());
        assert_ne!(made.admin, made.owner);
    }
}
