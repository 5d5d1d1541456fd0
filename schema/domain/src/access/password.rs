//! Passwords: strength rules for new passwords, and hashing.
//!
//! Argon2id only. Hashing is slow and uses much memory on purpose, so it runs on blocking threads (`spawn_blocking`),
//! with a limit on concurrent hashes. A caller that waits longer than two seconds for a hashing permit gets `Busy`.
//! Strength is estimated by `zxcvbn` (30,000 common words, keyboard patterns, dates, words about the person) instead of
//! composition rules. Passwords are normalised to Unicode NFKC before hashing, so that the same characters match
//! whatever keyboard produced them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use tokio::sync::Semaphore;
use unicode_normalization::UnicodeNormalization;

use crate::base::error::{Error, FieldError, Result};

/// Minimum length in characters, without a second factor.
pub const MIN_CHARS: usize = 15;
/// Minimum length in characters if a second factor is enrolled.
pub const MIN_CHARS_WITH_MFA: usize = 12;
/// Maximum length in bytes, after normalisation.
pub const MAX_BYTES: usize = 256;

/// Maximum wait for a hashing permit, after which the caller gets `Busy`.
const PERMIT_WAIT: Duration = Duration::from_secs(2);

/// The cost parameters of Argon2id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Memory per hash, in KiB.
    pub memory_kib: u32,
    /// Number of passes over the memory.
    pub passes: u32,
    /// Number of lanes (Argon2's parallelism).
    pub lanes: u32,
}

impl Cost {
    /// Minimum allowed cost: 19 MiB, two passes, one lane.
    pub const FLOOR: Self = Self { memory_kib: 19_456, passes: 2, lanes: 1 };
}

/// Creates and verifies password hashes.
#[derive(Clone)]
pub struct Hasher {
    params: Params,
    permits: Arc<Semaphore>,
    /// Maximum time to wait until a hash can run.
    permit_wait: Duration,
    /// Number of hashes computed so far.
    computed: Arc<AtomicU64>,
    /// Hash of a random secret. Verified if there is no account, so that the response takes equally long.
    dummy: Arc<str>,
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hasher").field("params", &self.params).finish_non_exhaustive()
    }
}

impl Hasher {
    /// Creates a hasher with this cost and at most `max_concurrent` concurrent hashes. Also computes the dummy hash
    /// that is verified if there is no account.
    ///
    /// # Errors
    /// `Crypto` if Argon2 does not accept the cost.
    pub fn new(cost: Cost, max_concurrent: usize) -> Result<Self> {
        let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, None)
            .map_err(|_| Error::Crypto("Argon2 does not accept these cost parameters"))?;
        let random_secret = crate::access::token::random()?;
        let dummy = hash_now(&params, &random_secret)?.into();
        let permits = Arc::new(Semaphore::new(max_concurrent.max(1)));
        Ok(Self { params, permits, permit_wait: PERMIT_WAIT, computed: Arc::default(), dummy })
    }

    /// Returns the hash of a password, as a PHC string.
    ///
    /// # Errors
    /// `Busy` if too many hashes are running.
    pub async fn hash(&self, password: &str) -> Result<String> {
        let (params, password) = (self.params.clone(), normalise(password));
        self.with_permit(move || hash_now(&params, password.as_bytes())).await?
    }

    /// Returns true if the password matches the hash. A missing hash takes as long as a wrong password; a corrupt hash
    /// never matches.
    ///
    /// # Errors
    /// `Busy` if too many hashes are running.
    pub async fn verify(&self, password: &str, hash: Option<&str>) -> Result<bool> {
        let exists = hash.is_some();
        let hash = hash.unwrap_or(&self.dummy).to_owned();
        let dummy = Arc::clone(&self.dummy);
        let password = normalise(password);
        let matches = self
            .with_permit(move || {
                // An overlong password is truncated and verified as well: an immediate rejection would be visible in
                // the response time.
                let bytes = &password.as_bytes()[..password.len().min(MAX_BYTES + 1)];
                if let Ok(parsed) = PasswordHash::new(&hash) {
                    return Argon2::default().verify_password(bytes, &parsed).is_ok();
                }
                metrics::counter!("sentryops_auth_corrupt_hash_total").increment(1);
                tracing::warn!("a stored password hash cannot be parsed: its user cannot sign in until the password is reset");
                if let Ok(parsed) = PasswordHash::new(&dummy) {
                    let _ = Argon2::default().verify_password(bytes, &parsed); // For equal response time.
                }
                false
            })
            .await?;
        Ok(matches && exists)
    }

    /// Returns true if the hash was created at a lower cost than the current one, or cannot be parsed.
    pub fn needs_rehash(&self, hash: &str) -> bool {
        let Ok(parsed) = PasswordHash::new(hash) else { return true };
        let Ok(stored) = Params::try_from(&parsed) else { return true };
        parsed.algorithm != Algorithm::Argon2id.ident()
            || stored.m_cost() < self.params.m_cost()
            || stored.t_cost() < self.params.t_cost()
    }

    /// Returns the number of hashes that were computed so far, for hashing and for verifying passwords.
    pub fn computed(&self) -> u64 {
        self.computed.load(Ordering::Relaxed)
    }

    async fn with_permit<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let permits = Arc::clone(&self.permits);
        let permit = tokio::time::timeout(self.permit_wait, permits.acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            return Err(Error::Busy { retry_after: self.permit_wait });
        };
        self.computed.fetch_add(1, Ordering::Relaxed);
        let hashing = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(permit); // Not released if the caller stops waiting: the hash still runs.
            result
        });
        hashing.await.map_err(|_| Error::Crypto("the password hashing thread exited unexpectedly"))
    }
}

fn hash_now(params: &Params, password: &[u8]) -> Result<String> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone())
        .hash_password(password)
        .map(|hash| hash.to_string())
        .map_err(|_| Error::Crypto("Argon2 could not hash the password"))
}

/// Returns true if both texts are the same password.
pub(crate) fn is_same(one: &str, other: &str) -> bool {
    normalise(one) == normalise(other)
}

fn normalise(password: &str) -> String {
    // Truncated before normalising, because NFKC can make a text eighteen times as long. Longer passwords are invalid
    // anyway.
    password.chars().take(MAX_BYTES + 1).nfkc().collect()
}

/// Checks that a new password is strong enough. `context` lists words that are easy to guess for this user: the
/// organization, the e-mail's local part, the user's name.
///
/// # Errors
/// A field error at `path` if the password is too short, too long or too easy to guess.
pub fn check(
    path: &str,
    password: &str,
    context: &[&str],
    has_mfa: bool,
) -> Result<(), FieldError> {
    let password = normalise(password);
    let minimum = if has_mfa { MIN_CHARS_WITH_MFA } else { MIN_CHARS };
    let length = password.chars().count();
    if length < minimum {
        return Err(FieldError::new(
            path,
            format!("has {length} characters, at least {minimum} are needed"),
        ));
    }
    if password.len() > MAX_BYTES {
        return Err(FieldError::new(path, format!("is longer than {MAX_BYTES} bytes")));
    }
    let context: Vec<&str> = context.iter().copied().chain(["sentryops"]).collect();
    // zxcvbn evaluates only the first 100 characters; further characters can only add strength.
    let strength = zxcvbn::zxcvbn(&password, &context);
    if strength.score() >= zxcvbn::Score::Three {
        return Ok(());
    }
    let reason = strength.feedback().and_then(zxcvbn::feedback::Feedback::warning).map_or_else(
        || "is too easy to guess".to_owned(),
        |warning| format!("is too easy to guess: {}", warning.to_string().trim_end_matches('.')),
    );
    Err(FieldError {
        path: path.to_owned(),
        message: reason,
        suggestion: Some("several unrelated words make a good password".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(password: &str, has_mfa: bool) -> Option<String> {
        check("password", password, &["acme", "ada.lovelace"], has_mfa)
            .err()
            .map(|fault| fault.message)
    }

    #[test]
    fn length_is_counted_in_characters() {
        assert_eq!(
            refusal("vX9 tulip frog", false).unwrap(),
            "has 14 characters, at least 15 are needed"
        );
        assert_eq!(refusal("vX9 tulip frog", true), None);
        assert_eq!(refusal("correct pelican mosaic", false), None);
        assert_eq!(refusal(&"xq".repeat(200), false).unwrap(), "is longer than 256 bytes");
    }

    #[test]
    fn sixty_four_emoji_are_a_password() {
        // Not in the order of their code points, which zxcvbn would treat as a sequence such as abc.
        let shuffled = (0..64).map(|index| 0x1f600 + index * 37 % 64);
        let emoji: String = shuffled.filter_map(char::from_u32).collect();
        assert_eq!(emoji.chars().count(), 64);
        assert_eq!(refusal(&emoji, false), None);
    }

    #[test]
    fn what_is_easy_to_guess_is_refused_with_a_reason() {
        for password in [
            "password123456789",
            "aaaaaaaaaaaaaaaaaaaa",
            "qwertyuiopasdfghjkl",
            "sentryopssentryops",
            "ada.lovelaceacme",
            "123456789012345678",
        ] {
            let reason =
                refusal(password, false).unwrap_or_else(|| panic!("{password} was accepted"));
            assert!(reason.starts_with("is too easy to guess"), "{reason}");
        }
    }

    const COST: Cost = Cost { memory_kib: 64, passes: 1, lanes: 1 };

    #[tokio::test]
    async fn the_last_character_matters_and_forms_are_folded() {
        let hasher = Hasher::new(COST, 1).unwrap();
        let hash = hasher.hash("a long passphrase Å").await.unwrap();
        assert!(hasher.verify("a long passphrase A\u{30a}", Some(&hash)).await.unwrap());
        assert!(!hasher.verify("a long passphrase A", Some(&hash)).await.unwrap());
    }

    #[tokio::test]
    async fn no_more_hashes_run_at_once_than_are_allowed() {
        let wait = Duration::from_millis(1);
        let hasher = Hasher { permit_wait: wait, ..Hasher::new(COST, 2).unwrap() };
        let (releases, held): (Vec<_>, Vec<_>) = (0..2)
            .map(|_| {
                let (release, wait) = std::sync::mpsc::channel::<()>();
                let hasher = hasher.clone();
                let held = async move { hasher.with_permit(move || wait.recv().is_ok()).await };
                (release, tokio::spawn(held))
            })
            .unzip();
        while hasher.permits.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let refused = hasher.verify("a password", None).await;
        assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
        assert_eq!(hasher.computed(), 2);
        for release in releases {
            release.send(()).unwrap();
        }
        for held in held {
            assert!(held.await.unwrap().unwrap());
        }
        assert!(!hasher.verify("a password", None).await.unwrap(), "places are free again");
    }

    #[tokio::test]
    async fn a_corrupt_or_missing_hash_is_a_wrong_password() {
        let hasher = Hasher::new(COST, 1).unwrap();
        for hash in [None, Some(""), Some("$argon2id$"), Some("$2b$12$abcdefghijklmnopqrstuv")] {
            assert!(!hasher.verify("anything", hash).await.unwrap(), "{hash:?}");
        }
    }

    #[tokio::test]
    async fn a_cheaper_hash_wants_rehashing() {
        let old = Hasher::new(COST, 1).unwrap().hash("x").await.unwrap();
        let hasher = Hasher::new(Cost { passes: 2, ..COST }, 1).unwrap();
        assert!(hasher.needs_rehash(&old));
        let new = hasher.hash("x").await.unwrap();
        assert!(!hasher.needs_rehash(&new));
        assert!(new.starts_with("$argon2id$v=19$m=64,t=2,p=1$"), "{new}");
    }
}
