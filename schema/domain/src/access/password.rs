//! Passwords: which are good enough, and their hashes.
//!
//! Argon2id only. Hashing is slow and takes memory on purpose, so it runs beside the runtime (`spawn_blocking`) and at
//! most a few at once; who waits longer than two seconds for a turn is told to come back. Strength is judged by
//! `zxcvbn` (30,000 common words, keyboard walks, dates, the person's own words) instead of composition rules.
//! What is typed is compared in Unicode's NFKC form, so that the same keys match on another keyboard.

use std::{sync::Arc, time::Duration};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use tokio::sync::Semaphore;
use unicode_normalization::UnicodeNormalization;

use crate::base::error::{Error, FieldError, Result};

/// Characters at least; with a second factor fewer would do.
pub const MIN_CHARS: usize = 15;
/// Characters at least where a second factor is enrolled.
pub const MIN_CHARS_WITH_MFA: usize = 12;
/// Bytes at most, after normalisation.
pub const MAX_BYTES: usize = 256;

/// How long a caller waits for its turn to hash.
const TURN_WAIT: Duration = Duration::from_secs(2);

/// Argon2id's cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Memory, KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Cost {
    /// The least that is allowed anywhere: 19 MiB, two passes, one lane.
    pub const FLOOR: Self = Self { memory_kib: 19_456, passes: 2, lanes: 1 };
}

/// Makes and checks password hashes.
#[derive(Clone)]
pub struct Hasher {
    params: Params,
    turns: Arc<Semaphore>,
    /// The hash of nothing anybody knows: verified where there is no account, so that the answer takes as long.
    dummy: Arc<str>,
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hasher").field("params", &self.params).finish_non_exhaustive()
    }
}

impl Hasher {
    /// With this cost, and at most `parallel` hashes at once. Hashes once, for the account that does not exist.
    ///
    /// # Errors
    /// The cost is one that Argon2 refuses.
    pub fn new(cost: Cost, parallel: usize) -> Result<Self> {
        let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, None)
            .map_err(|_| Error::Crypto("Argon2 refuses this cost"))?;
        let nothing = crate::access::token::random()?;
        let dummy = hash_now(&params, &nothing)?.into();
        Ok(Self { params, turns: Arc::new(Semaphore::new(parallel.max(1))), dummy })
    }

    /// The hash of a password, as a PHC string.
    pub async fn hash(&self, password: &str) -> Result<String> {
        let (params, password) = (self.params.clone(), normalise(password));
        self.take_turn(move || hash_now(&params, password.as_bytes())).await?
    }

    /// Whether the password is the hash's. No hash takes as long as a wrong password, and a corrupt one is a wrong one.
    pub async fn verify(&self, password: &str, hash: Option<&str>) -> Result<bool> {
        let exists = hash.is_some();
        let hash = hash.unwrap_or(&self.dummy).to_owned();
        let dummy = Arc::clone(&self.dummy);
        let password = normalise(password);
        let matches = self
            .take_turn(move || {
                // An overlong one is checked all the same, cut off: refusing it early would show.
                let bytes = &password.as_bytes()[..password.len().min(MAX_BYTES + 1)];
                if let Ok(parsed) = PasswordHash::new(&hash) {
                    return Argon2::default().verify_password(bytes, &parsed).is_ok();
                }
                metrics::counter!("sentryops_auth_corrupt_hash_total").increment(1);
                tracing::warn!("a stored password hash cannot be read");
                if let Ok(parsed) = PasswordHash::new(&dummy) {
                    let _ = Argon2::default().verify_password(bytes, &parsed); // For the time it takes.
                }
                false
            })
            .await?;
        Ok(matches && exists)
    }

    /// Whether a hash was made at a lower cost than today's.
    pub fn needs_rehash(&self, hash: &str) -> bool {
        let Ok(parsed) = PasswordHash::new(hash) else { return true };
        let Ok(stored) = Params::try_from(&parsed) else { return true };
        parsed.algorithm != Algorithm::Argon2id.ident()
            || stored.m_cost() < self.params.m_cost()
            || stored.t_cost() < self.params.t_cost()
    }

    async fn take_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let turn = tokio::time::timeout(TURN_WAIT, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(Error::Busy { retry_after: TURN_WAIT }) };
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(turn); // Held by the work itself: a caller that goes away does not free a turn early.
            result
        });
        done.await.map_err(|_| Error::Crypto("the hashing thread ended early"))
    }
}

fn hash_now(params: &Params, password: &[u8]) -> Result<String> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone())
        .hash_password(password)
        .map(|hash| hash.to_string())
        .map_err(|_| Error::Crypto("Argon2 could not hash"))
}

fn normalise(password: &str) -> String {
    // Cut first: normalising can lengthen eighteenfold, and nobody's password is that long.
    password.chars().take(MAX_BYTES + 1).nfkc().collect()
}

/// Checks that a new password is good enough. `context` holds words that are near to guess here: the organization, the
/// e-mail's local part, the person's name.
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
    // zxcvbn looks at 100 characters; what follows only adds.
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
        // Not in the order of their code points, which would be a sequence like abc.
        let shuffled = (0..64).map(|place| 0x1f600 + place * 37 % 64);
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
