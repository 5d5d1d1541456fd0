//! Access tokens: short-lived JWTs that identify a session. Also opaque random tokens, used as refresh tokens and API
//! keys.
//!
//! Chosen: HMAC-SHA256 with a ring of secret keys (`kid`), because every replica both signs and verifies tokens and
//! HMAC verifies twenty times faster than a public-key signature. A token only identifies the session; permissions are
//! read from the database on every request. No other algorithm is accepted, and keys that a token refers to (`jku`,
//! `jwk`) are ignored.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::base::{
    entity::{OrganizationId, SessionId, UserId},
    error::{Error, Result},
    id::Id,
};

const ISSUER: &str = "sentryops";
const AUDIENCE: &str = "sentryops-api";
/// `typ` header that distinguishes an access token from other JWTs (RFC 9068).
const TYPE: &str = "at+jwt";
/// Maximum length of a token in bytes; a longer token was not issued here.
const MAX_BYTES: usize = 4096;
/// Tolerated difference between the clocks of two replicas.
const LEEWAY_SECONDS: i64 = 5;

/// The claims of an access token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Id of the session's user.
    pub sub: UserId,
    /// Id of the session that the token belongs to.
    pub sid: SessionId,
    /// The organization that the session is signed in to.
    pub org: OrganizationId,
    /// Number of times that the session had switched its organization; a token of an earlier number is rejected.
    #[serde(rename = "gen", default)]
    pub generation: i32,
    /// Time of issue, in Unix seconds.
    pub iat: i64,
    /// Start of validity, in Unix seconds.
    pub nbf: i64,
    /// Time of expiry, in Unix seconds.
    pub exp: i64,
    /// Unique id of the token.
    pub jti: uuid::Uuid,
    /// The issuer, always `sentryops`.
    pub iss: String,
    /// The audience, always `sentryops-api`.
    pub aud: String,
}

/// Keys that sign and verify access tokens. The first key signs; all keys verify.
#[derive(Clone)]
pub struct TokenKeys {
    signing: (String, EncodingKey),
    verifying: Vec<(String, DecodingKey)>,
}

impl Claims {
    /// Returns the claims of a token for the session.
    pub fn new(
        user: UserId,
        session: SessionId,
        (org, generation): (OrganizationId, i32),
        now: DateTime<Utc>,
        expires_at: DateTime<Utc>,
    ) -> Self {
        Self {
            sub: user,
            sid: session,
            org,
            generation,
            iat: now.timestamp(),
            nbf: now.timestamp(),
            exp: expires_at.timestamp(),
            jti: uuid::Uuid::new_v4(),
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
        }
    }
}

impl std::fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.verifying.iter().map(|(kid, _)| kid)).finish()
    }
}

impl TokenKeys {
    /// Creates the keys from a validated key ring: pairs of key id (`kid`) and secret.
    ///
    /// # Panics
    /// Panics if the ring is empty, which validation rejects.
    pub fn new<'a>(ring: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let ring: Vec<_> = ring.into_iter().collect();
        let (kid, secret) = ring.first().expect("a validated key ring has a key");
        Self {
            signing: ((*kid).to_owned(), EncodingKey::from_secret(secret)),
            verifying: ring
                .iter()
                .map(|(kid, secret)| ((*kid).to_owned(), DecodingKey::from_secret(secret)))
                .collect(),
        }
    }

    /// Checks that a token of these keys is accepted by them, for the readiness probe.
    ///
    /// # Errors
    /// The first error of signing or of verifying a token that belongs to no session.
    pub fn check(&self, now: DateTime<Utc>) -> Result<()> {
        let claims = Claims::new(Id::new(), Id::new(), (Id::new(), 0), now, now);
        self.verify(&self.mint(&claims)?, now).map(drop)
    }

    /// Returns a signed access token with these claims.
    pub fn mint(&self, claims: &Claims) -> Result<String> {
        let mut header = Header::new(Algorithm::HS256);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(self.signing.0.clone());
        jsonwebtoken::encode(&header, claims, &self.signing.1)
            .map_err(|_| Error::Crypto("an access token could not be signed"))
    }

    /// Verifies a token and returns its claims. This installation must have issued the token, and the token must be
    /// valid at `now`.
    ///
    /// # Errors
    /// `BadToken`. The message discloses only whether the token has expired, is not valid yet, or was not issued by
    /// this installation.
    pub fn verify(&self, token: &str, now: DateTime<Utc>) -> Result<Claims> {
        const FOREIGN: Error =
            Error::BadToken("the access token was not issued by this installation: sign in again");
        if token.len() > MAX_BYTES {
            return Err(FOREIGN);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| FOREIGN)?;
        if header.typ.as_deref() != Some(TYPE) || header.crit.is_some() {
            return Err(FOREIGN);
        }
        let kid = header.kid.ok_or(FOREIGN)?;
        let (_, key) = self.verifying.iter().find(|(known, _)| *known == kid).ok_or(FOREIGN)?;
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[ISSUER]);
        // Times are compared below, against the caller's `now`.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let claims =
            jsonwebtoken::decode::<Claims>(token, key, &validation).map_err(|_| FOREIGN)?.claims;
        let now = now.timestamp();
        if claims.exp.saturating_add(LEEWAY_SECONDS) < now {
            return Err(Error::BadToken("the access token has expired: call refreshSession"));
        }
        if claims.nbf.saturating_sub(LEEWAY_SECONDS) > now {
            return Err(Error::BadToken(
                "the access token is not valid yet: check the servers' clocks",
            ));
        }
        Ok(claims)
    }
}

/// Returns 256 random bits from the operating system.
pub fn random() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|_| Error::Crypto("the operating system returned no random bytes"))?;
    Ok(bytes)
}

/// Returns a new opaque token: 256 random bits as URL-safe base64.
pub fn opaque() -> Result<String> {
    Ok(URL_SAFE_NO_PAD.encode(random()?))
}

/// Returns the SHA-256 hash of an opaque token. Only this hash is stored. A token has 256 random bits, so a fast hash
/// is enough.
pub fn digest(token: &str) -> Vec<u8> {
    Sha256::digest(token.as_bytes()).to_vec()
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use serde_json::json;

    use super::*;

    const KEY: &[u8] = b"0123456789abcdef0123456789ABCDEF";
    const OTHER: &[u8] = b"fedcba9876543210FEDCBA9876543210";

    fn keys() -> TokenKeys {
        TokenKeys::new([("k1", KEY)])
    }

    fn claims() -> Claims {
        Claims::new(Id::new(), Id::new(), (Id::new(), 0), noon(), noon() + TimeDelta::minutes(30))
    }

    fn noon() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn minted() -> String {
        keys().mint(&claims()).unwrap()
    }

    #[test]
    fn a_token_names_its_session_until_it_expires() {
        let session = claims();
        let token = keys().mint(&session).unwrap();
        let claims = keys().verify(&token, noon() + TimeDelta::minutes(30)).unwrap();
        assert_eq!((claims.sid, claims.sub, claims.org), (session.sid, session.sub, session.org));
        assert!(keys().verify(&token, noon() + TimeDelta::seconds(1805)).is_ok());
        assert!(keys().verify(&token, noon() + TimeDelta::seconds(1806)).is_err());
        assert!(keys().verify(&token, noon() - TimeDelta::seconds(6)).is_err());
    }

    #[test]
    fn a_rotated_ring_still_verifies_until_the_key_is_retired() {
        let token = minted();
        assert!(TokenKeys::new([("k2", OTHER), ("k1", KEY)]).verify(&token, noon()).is_ok());
        assert!(TokenKeys::new([("k2", OTHER)]).verify(&token, noon()).is_err());
        assert!(TokenKeys::new([("k1", OTHER)]).verify(&token, noon()).is_err());
    }

    /// Returns a token with changed header fields and claims, signed with the right key. `null` removes a field.
    fn forged(header: serde_json::Value, claims: serde_json::Value) -> String {
        use hmac::{Hmac, Mac};
        let mut all_header = json!({"alg": "HS256", "typ": TYPE, "kid": "k1"});
        let mut all_claims =
            serde_json::to_value(keys().verify(&minted(), noon()).unwrap()).unwrap();
        for (target, changes) in [(&mut all_header, header), (&mut all_claims, claims)] {
            for (key, value) in changes.as_object().unwrap() {
                if value.is_null() {
                    target.as_object_mut().unwrap().remove(key);
                } else {
                    target[key] = value.clone();
                }
            }
        }
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(all_header), part(all_claims));
        let mut mac = Hmac::<Sha256>::new_from_slice(KEY).unwrap();
        mac.update(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    }

    #[test]
    fn the_forger_makes_valid_tokens_when_nothing_is_changed() {
        assert!(keys().verify(&forged(json!({}), json!({})), noon()).is_ok());
    }

    #[test]
    fn confused_tokens_are_refused() {
        let now = noon().timestamp();
        let user = UserId::new().to_string();
        let cases = [
            (json!({"alg": "none"}), json!({})),
            (json!({"alg": "HS512"}), json!({})),
            (json!({"alg": "HS384"}), json!({})),
            (json!({"alg": "RS256"}), json!({})),
            (json!({"alg": "ES256"}), json!({})),
            (json!({"alg": "EdDSA"}), json!({})),
            (json!({"alg": null}), json!({})),
            (json!({"typ": "JWT"}), json!({})),
            (json!({"typ": "rt+jwt"}), json!({})),
            (json!({"typ": null}), json!({})),
            (json!({"kid": "k2"}), json!({})),
            (json!({"kid": null}), json!({})),
            (json!({"kid": "../../dev/null"}), json!({})),
            (json!({"crit": ["exp"]}), json!({})),
            (json!({}), json!({"aud": "other"})),
            (json!({}), json!({"aud": null})),
            (json!({}), json!({"iss": "other"})),
            (json!({}), json!({"iss": null})),
            (json!({}), json!({"exp": now - 6})),
            (json!({}), json!({"exp": null})),
            (json!({}), json!({"nbf": now + 6})),
            (json!({}), json!({"nbf": null})),
            (json!({}), json!({"sub": null})),
            (json!({}), json!({"sid": user})),
            (json!({}), json!({"sub": "x".repeat(5000)})),
        ];
        for (header, claims) in cases {
            let token = forged(header.clone(), claims.clone());
            assert!(keys().verify(&token, noon()).is_err(), "{header} {claims}");
        }
    }

    #[test]
    fn embedded_keys_are_ignored() {
        let header = json!({"jku": "https://evil.example/keys", "jwk": {"kty": "oct", "k": URL_SAFE_NO_PAD.encode(OTHER)}});
        let token = forged(header, json!({}));
        assert!(
            keys().verify(&token, noon()).is_ok(),
            "signed with the ring's key, so the rest is noise"
        );
        let (signed, _) = token.rsplit_once('.').unwrap();
        assert!(keys().verify(&format!("{signed}."), noon()).is_err());
    }

    #[test]
    fn a_changed_claim_breaks_the_signature() {
        let token = minted();
        let mut parts: Vec<&str> = token.split('.').collect();
        let other = minted();
        parts[1] = other.split('.').nth(1).unwrap();
        assert!(keys().verify(&parts.join("."), noon()).is_err());
        for text in ["", "a.b.c", "..", &token[..token.len() - 4]] {
            assert!(keys().verify(text, noon()).is_err(), "{text}");
        }
    }
}
