//! Key rings: `kid:secret[,kid:secret…]`. The first key signs and encrypts; all keys verify and decrypt.
//!
//! Only random bytes are accepted (32 or more, in base64, base64url or hex). Passphrases are rejected, because they
//! would need key stretching, and no check separates strong from weak passphrases. Random bytes are rejected by mistake
//! less than once in ten million times. An error identifies a key by its position, never by part of its text.

use std::{
    collections::HashSet,
    fs::{DirBuilder, File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use anyhow::{Context, Result, anyhow, ensure};
use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
    prelude::BASE64_URL_SAFE_NO_PAD,
};

use super::{Expected, Secret};

const MIN_BYTES: usize = 32;
const MIN_DISTINCT_BYTES: usize = 16;
/// Words that mark a placeholder. Words of fewer than six letters are not used, because they occur in random text.
const PLACEHOLDERS: &[&str] = &[
    "changeme",
    "example",
    "secret",
    "password",
    "placeholder",
    "sample",
    "replaceme",
    "sentryops",
    "insecure",
    "default",
];

/// Keys of one purpose, never empty. The first key signs and encrypts; all keys verify and decrypt.
#[derive(Debug, Clone)]
pub(crate) struct KeyRing(Vec<Key>);

/// A key of a ring, with its public name.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    /// Public name of the key, 1 to 16 of `a-z0-9-`; unique in the ring.
    pub kid: String,
    /// Secret of at least 32 random bytes.
    pub secret: Secret<Vec<u8>>,
}

impl KeyRing {
    /// Parses a ring, or returns a description of the expected form.
    pub(crate) fn parse(text: &str) -> Result<Self, Expected> {
        let mut keys: Vec<Key> = Vec::new();
        for (index, entry) in text.split(',').enumerate() {
            let key = Key::parse(entry.trim()).map_err(|expected| {
                Expected::from(format!("key {} to be {expected}", index + 1))
            })?;
            if keys.iter().any(|other| other.kid == key.kid) {
                return Err("a different kid for each key".into());
            }
            if keys.iter().any(|other| other.secret.expose() == key.secret.expose()) {
                return Err("keys that differ from each other".into());
            }
            keys.push(key);
        }
        Ok(Self(keys))
    }

    /// Returns all keys. The first key is the one that signs and encrypts.
    pub(crate) fn keys(&self) -> &[Key] {
        &self.0
    }

    /// Returns true if the two rings share a secret. A shared secret is not allowed, because each purpose needs its
    /// own.
    pub(crate) fn shares_a_key_with(&self, other: &Self) -> bool {
        let in_other = |key: &Key| other.0.iter().any(|k| k.secret.expose() == key.secret.expose());
        self.0.iter().any(in_other)
    }

    /// Loads the ring from the file at `path`. If the file does not exist, generates it with one random key. Concurrent
    /// processes are safe: one of them creates the file, and all read the same file.
    ///
    /// # Errors
    /// If the file cannot be read or created, is readable by other users, or contains no key ring.
    pub(crate) fn load_or_generate(path: &Path) -> Result<Self> {
        match File::open(path) {
            Ok(file) => Self::load(file),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                generate(path)?;
                Self::load(File::open(path)?)
            }
            Err(error) => Err(error.into()),
        }
        .with_context(|| format!("key ring {}", path.display()))
    }

    fn load(mut file: File) -> Result<Self> {
        let mode = file.metadata()?.permissions().mode();
        ensure!(mode.trailing_zeros() >= 6, "other users can read the file: run chmod 600 on it");
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Self::parse(text.trim_end()).map_err(|expected| anyhow!("expected {expected}"))
    }
}

impl Key {
    fn parse(entry: &str) -> Result<Self, Expected> {
        let (kid, text) = entry.split_once(':').ok_or("`kid:secret`")?;
        let is_kid_byte = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !(1..=16).contains(&kid.len()) || !kid.bytes().all(is_kid_byte) {
            return Err("named by 1 to 16 of a-z, 0-9 and -".into());
        }
        if is_placeholder(text.as_bytes()) {
            return Err("random, not a placeholder: `openssl rand -base64 32` makes one".into());
        }
        let bytes = decode(text).ok_or("base64, base64url or hex of random bytes")?;
        if bytes.len() < MIN_BYTES {
            return Err("at least 32 bytes long: `openssl rand -base64 32` makes one".into());
        }
        if !looks_random(text, &bytes) {
            return Err("random: `openssl rand -base64 32` makes one".into());
        }
        Ok(Self { kid: kid.to_owned(), secret: Secret::new(bytes) })
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    if is_hex(text) {
        let nibble = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
        return (0..text.len()).step_by(2).map(nibble).collect();
    }
    let lenient =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabet = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    GeneralPurpose::new(alphabet, lenient).decode(text).ok()
}

fn is_hex(text: &str) -> bool {
    text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_placeholder(text: &[u8]) -> bool {
    let letters: String = text
        .iter()
        .filter(|byte| byte.is_ascii_alphanumeric())
        .map(|byte| char::from(byte.to_ascii_lowercase()))
        .collect();
    PLACEHOLDERS.iter().any(|word| letters.contains(word))
}

fn looks_random(text: &str, bytes: &[u8]) -> bool {
    let distinct: HashSet<&u8> = bytes.iter().collect();
    let is_varied = distinct.len() >= MIN_DISTINCT_BYTES;

    let step = bytes[1].wrapping_sub(bytes[0]);
    let is_sequence = bytes.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == step);
    let repeats = (1..=bytes.len() / 2).any(|n| bytes[n..] == bytes[..bytes.len() - n]);
    let is_text = bytes.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace());
    // A passphrase such as `correct-horse-battery-…` is valid base64url, but has letters of one case only.
    let has = |is_case: fn(&u8) -> bool| text.as_bytes().iter().any(is_case);
    let is_coded = is_hex(text) || has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase);
    is_varied && !is_sequence && !repeats && !is_text && is_coded && !is_placeholder(bytes)
}

/// Creates the file at `path` atomically. A draft is written completely and then hard-linked to `path`. If another
/// process has created the file meanwhile, the link fails and that file stays.
fn generate(path: &Path) -> Result<()> {
    let folder = path.parent().context("the path has no parent folder")?;
    // The user that Postgres runs as must be able to enter the data folder, but not the folder of the secrets.
    if let Some(parent) = folder.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
        _ => {}
    }
    let draft = folder.join(format!(".draft-{}", hex(&random::<8>()?)));
    let ring =
        format!("{}:{}\n", hex(&random::<4>()?), BASE64_URL_SAFE_NO_PAD.encode(random::<32>()?));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let written = file.write_all(ring.as_bytes()).and_then(|()| file.sync_all());
    let linked = written.and_then(|()| std::fs::hard_link(&draft, path));
    std::fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error.into()),
        _ => Ok(File::open(folder)?.sync_all()?),
    }
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| anyhow!("the system returned no random bytes: {error}"))?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE};

    use super::*;

    fn refused(text: &str) -> String {
        KeyRing::parse(text).map(|_| ()).unwrap_err().into_owned()
    }

    #[test]
    fn every_common_spelling_of_random_bytes_is_taken() {
        let bytes = random::<32>().unwrap();
        for secret in [
            BASE64_STANDARD.encode(bytes),
            BASE64_STANDARD_NO_PAD.encode(bytes),
            BASE64_URL_SAFE.encode(bytes),
            BASE64_URL_SAFE_NO_PAD.encode(bytes),
            hex(&bytes),
            hex(&bytes).to_uppercase(),
        ] {
            let ring = KeyRing::parse(&format!("2025-11:{secret}")).unwrap();
            assert_eq!(ring.keys()[0].kid, "2025-11");
            assert_eq!(ring.keys()[0].secret.expose(), &bytes);
        }
    }

    #[test]
    fn the_first_key_is_the_current_one_and_the_order_is_kept() {
        let [a, b] = [hex(&random::<32>().unwrap()), hex(&random::<48>().unwrap())];
        let ring = KeyRing::parse(&format!("new:{a}, old:{b}")).unwrap();
        let kids: Vec<_> = ring.keys().iter().map(|key| key.kid.as_str()).collect();
        assert_eq!(kids, ["new", "old"]);
        assert_eq!(ring.keys()[0].kid, "new");
    }

    #[test]
    fn what_is_not_random_is_refused() {
        let good = hex(&random::<32>().unwrap());
        let ascending: Vec<u8> = (7..39).collect();
        let descending: Vec<u8> = (7..39).rev().collect();
        let few: Vec<u8> = (0..32).map(|i| i * 7 % 15).collect();
        let twice = [random::<16>().unwrap(); 2].concat();
        let text = BASE64_STANDARD.encode("Nobody will ever guess these very words of mine.");
        let named = BASE64_STANDARD.encode([&random::<32>().unwrap()[..], b"Change_Me"].concat());
        for (secret, expected) in [
            (hex(&random::<31>().unwrap()), "at least 32 bytes"),
            (BASE64_STANDARD.encode(random::<31>().unwrap()), "at least 32 bytes"),
            (hex(&[0xab; 32]), "random"),
            (hex(&ascending), "random"),
            (BASE64_STANDARD.encode(descending), "random"),
            (hex(&few), "random"),
            (hex(&twice), "random"),
            (text, "random"),
            (named, "random"),
            ("correct-horse-battery-staple-and-quite-a-few-more-words".into(), "random"),
            ("change-me-change-me-change-me-change-me-change-me".into(), "placeholder"),
            ("Example0123456789abcdefghijklmnopqrstuvwxyzABCDEF".into(), "placeholder"),
            ("my$passphrase is not base64 at all, or is it?".into(), "base64"),
            (String::new(), "32 bytes"),
        ] {
            let message = refused(&format!("a:{good},b:{secret}"));
            assert!(message.starts_with("key 2"), "{message}");
            assert!(message.contains(expected), "{secret}: {message}");
        }
    }

    #[test]
    fn kids_are_short_plain_and_unique_and_so_are_keys() {
        let [a, b] = [hex(&random::<32>().unwrap()), hex(&random::<32>().unwrap())];
        assert!(refused(&a).contains("kid:secret"));
        for kid in ["", "A", "ab_c", "seventeen-letters", "ü"] {
            assert!(refused(&format!("{kid}:{a}")).contains("1 to 16"));
        }
        assert!(refused(&format!("k:{a},k:{b}")).contains("different kid"));
        assert!(refused(&format!("k:{a},l:{}", a.to_uppercase())).contains("differ"));
        assert!(refused("").contains("kid:secret"));
        assert!(refused(&format!("k:{a},")).contains("kid:secret"));
    }

    #[test]
    fn the_documented_samples_are_refused() {
        let sample = include_str!("../../../.env.example");
        let rings: Vec<_> = sample
            .lines()
            .filter_map(|line| line.trim_start_matches(['#', ' ']).split_once("_KEYS="))
            .collect();
        assert_eq!(rings.len(), 2);
        for (_, ring) in rings {
            assert!(refused(ring).contains("placeholder"));
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let ring = KeyRing::parse(&format!("kid-a:{}", hex(&random::<32>().unwrap()))).unwrap();
        assert_eq!(format!("{ring:?}"), r#"KeyRing([Key { kid: "kid-a", secret: [secret] }])"#);
    }

    #[test]
    fn a_ring_is_generated_once_by_whoever_comes_first_and_for_its_owner_only() {
        let folder = std::env::temp_dir().join(format!("ring-{}", hex(&random::<8>().unwrap())));
        let path = folder.join("secrets/jwt_keys");
        let load = || KeyRing::load_or_generate(&path).unwrap().keys()[0].secret.expose().clone();
        let secrets: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(load)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(secrets.iter().all(|secret| *secret == secrets[0]));
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let error = KeyRing::load_or_generate(&path).unwrap_err();
        assert!(format!("{error:#}").contains("chmod 600"));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
