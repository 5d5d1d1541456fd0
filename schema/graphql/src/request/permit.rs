//! Who asks for what is no document: a file in, a file out. Judged as a root field would be.

use chrono::{DateTime, Utc};
use domain::{Origin, Viewer, access::permission::Permission};

use crate::request::{
    answer::{Answer, refused, sign},
    context::{Client, SIGN_IN, Services},
    error::{Error, ErrorCode, Result},
};

/// What somebody has lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// All: the session, the key or the token is over.
    Access,
    /// Something that they could do when they came.
    Rights,
}

/// Somebody who may.
pub(crate) struct Permit {
    pub(crate) viewer: Viewer,
    pub(crate) origin: Origin,
}

impl Services {
    /// Who stands behind the bearer, if they have the permission for `what`.
    pub(crate) async fn permit(
        &self,
        bearer: Option<&str>,
        client: &Client,
        (what, permission): (&str, Permission),
        now: DateTime<Utc>,
    ) -> Result<Permit> {
        let bearer = bearer.ok_or_else(|| {
            Error::new(
                ErrorCode::Unauthenticated,
                format!("{what} is for those signed in. {SIGN_IN}"),
            )
        })?;
        let viewer = self.identity.authenticate(bearer, client.address, now).await?;
        if !viewer.may(permission) {
            return Err(Error::new(
                ErrorCode::Forbidden,
                format!(
                    "{what} takes the permission {permission}, which you do not have in this organization."
                ),
            ));
        }
        let origin = viewer.origin(client.address, client.request_id.clone());
        Ok(Permit { viewer, origin })
    }
}

/// The answer to a request that failed.
pub(crate) fn failed(error: &Error, client: &Client) -> Answer {
    let mut answer = refused(error);
    sign(&mut answer.response, &client.request_id);
    answer
}
