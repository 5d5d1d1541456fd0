//! Authorization of requests that carry no GraphQL document: uploads and downloads of files. The same rules apply as
//! for a root field that requires a permission.

use chrono::{DateTime, Utc};
use domain::{Origin, Viewer, access::permission::Permission};

use crate::request::{
    answer::{Answer, add_request_id, refused},
    context::{Client, SIGN_IN, Services},
    error::{Error, ErrorCode, Result},
};

/// Loss of access while a connection is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLoss {
    /// Access was lost entirely: the session has ended, or the access token or API key has expired or was revoked.
    Access,
    /// The caller has lost at least one permission that the caller had when the connection opened.
    Permission,
}

/// Proof that a caller is signed in and has a permission.
pub(crate) struct Permit {
    pub(crate) viewer: Viewer,
    pub(crate) origin: Origin,
}

impl Services {
    /// Authenticates the bearer token and checks the permission. `what` is the name of the operation in error messages.
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
                format!("{what} requires you to be signed in. {SIGN_IN}"),
            )
        })?;
        let viewer = self.identity.authenticate(bearer, client.address, now).await?;
        self.count_caller(Some(&viewer)).await?;
        if !viewer.may(permission) {
            self.count_refused(&viewer, what, permission, client, now);
            return Err(Error::new(
                ErrorCode::Forbidden,
                format!(
                    "{what} requires the permission {permission}, which you do not have in this organization."
                ),
            ));
        }
        let origin = viewer.origin(client.address, client.request_id.clone());
        Ok(Permit { viewer, origin })
    }
}

/// Creates the answer to a failed request, with the request id.
pub(crate) fn failed(error: &Error, client: &Client) -> Answer {
    let mut answer = refused(error);
    add_request_id(&mut answer.response, &client.request_id);
    answer
}
