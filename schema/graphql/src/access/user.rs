//! Users, their roles and memberships: GraphQL types, queries and mutations.

use std::collections::HashMap;

use async_graphql::{Context, Object};
pub(crate) use domain::access::role::Role;
use domain::{
    Id,
    access::{
        directive::{authenticated, or_oneself, requires},
        permission::Permission::{self, RoleManage, UserManage, UserRead},
        session::{EndReason, Session},
        user::{self, CreateUserInput, UpdateUserInput},
    },
    base::page::{CursorScope, PageArgs},
    entity::{self, RoleId, UserId},
};
use futures_util::future::OptionFuture;

use crate::request::{
    context::{ContextExt, RequestScope},
    error::Result,
    loader::{Batch, Load},
    node::Identified,
    page::{Connection, wants_total},
    row::{Row, rows},
};

/// A user, as a member of the viewer's organization.
pub(crate) struct User(pub(crate) user::User);

/// A user, as a member of the viewer's organization. Every signed-in caller can read `id` and `name`. The other fields
/// require `USER_READ`, unless the caller is the user.
#[Object(directive = authenticated::apply())]
impl User {
    #[graphql(flatten)]
    async fn row(&self) -> &user::User {
        &self.0
    }

    /// Roles of the user in the viewer's organization. Requires `USER_READ`, unless the caller is the user.
    #[graphql(directive = requires::apply(UserRead), directive = or_oneself::apply())]
    async fn roles(&self, ctx: &Context<'_>) -> Result<Vec<Row<Role>>> {
        Ok(rows(ctx.load::<RolesOfUser>(self.0.id).await?.unwrap_or_default()))
    }
}

/// Query fields for users and roles.
#[derive(Default)]
pub(crate) struct UserQuery;

#[Object]
impl UserQuery {
    /// Members of the organization, ordered by name, including inactive members. Requires `USER_READ`.
    #[graphql(directive = requires::apply(UserRead))]
    async fn users(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Page size, 1 to 100; default 50.")] first: Option<i32>,
        #[graphql(desc = "Cursor after which the page starts.")] after: Option<String>,
        #[graphql(desc = "Page size from the end, 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "Cursor before which the page ends.")] before: Option<String>,
    ) -> Result<Connection<User>> {
        let keys = &ctx.services().cursors;
        let scope = CursorScope::new(ctx.viewer()?.org, "users", &());
        let request = PageArgs { first, after, last, before }.check(keys, &scope)?;
        let tx = ctx.read().await?;
        let counting: OptionFuture<_> = wants_total(ctx).then(|| user::User::count(&tx)).into();
        let (page, total) = tokio::join!(user::User::list(&tx, &request), counting);
        let total = total.transpose()?;
        Ok(Connection::new(page?, keys, &scope, total, user::User::position, User))
    }

    /// Roles that members of the organization can have. Requires `USER_READ`.
    #[graphql(directive = requires::apply(UserRead))]
    async fn roles(&self, ctx: &Context<'_>) -> Result<Vec<Row<Role>>> {
        Ok(rows(Role::list(&*ctx.read().await?, ctx.viewer()?.org).await?))
    }
}

/// Mutation fields for users and roles.
#[derive(Default)]
pub(crate) struct UserMutation;

#[Object]
impl UserMutation {
    /// Creates a user in the organization. A person who already has an account in this installation is invited instead,
    /// with the same answer: they become a member when they accept, with the password given here. The caller must have
    /// all permissions of the user's roles. Requires `USER_MANAGE`.
    #[graphql(directive = requires::apply(UserManage))]
    async fn create_user(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The new user and their roles.")] input: CreateUserInput,
    ) -> Result<User> {
        let viewer = ctx.viewer()?;
        let hash = hash_new(ctx, &input.password, &input.email, &input.name).await;
        // The errors of the password and of the other fields are reported together.
        let hash = match (hash, input.check()) {
            (Ok(hash), Ok(_)) => hash,
            (Ok(_), Err(faults)) => return Err(domain::Error::Invalid(faults).into()),
            (Err(domain::Error::Invalid(mut faults)), Err(others)) => {
                faults.splice(0..0, others);
                return Err(domain::Error::Invalid(faults).into());
            }
            (Err(error), _) => return Err(error.into()),
        };
        let tx = ctx.write_users().await?;
        let user =
            user::User::create(&tx, viewer.org, Some(viewer), &input, &hash, ctx.now()).await?;
        tx.commit().await?;
        Ok(User(user))
    }

    /// Changes a member. Name and password can be changed only if the user belongs to no other organization. A new
    /// password ends all of the user's sessions. Requires `USER_MANAGE`.
    #[graphql(directive = requires::apply(UserManage))]
    async fn update_user(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The user's id, beginning `usr_`.")] id: UserId,
        #[graphql(desc = "Changes to the user.")] input: UpdateUserInput,
    ) -> Result<User> {
        let hash = match &input.password {
            Some(password) => {
                let known = ctx.load::<UserById>(id).await?;
                let (email, name) = known.map(|user| (user.email, user.name)).unwrap_or_default();
                Some(hash_new(ctx, password, &email, &name).await?)
            }
            None => None,
        };
        let tx = ctx.write_users().await?;
        let user =
            user::User::update(&tx, ctx.viewer()?, id, &input, hash.as_deref(), ctx.now()).await?;
        tx.commit().await?;
        Ok(User(user))
    }

    /// Replaces a member's roles in this organization. The caller must have all permissions that are granted or
    /// withdrawn, and the organization must keep at least one active owner. Requires `USER_MANAGE`.
    #[graphql(directive = requires::apply(UserManage))]
    async fn set_user_roles(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The user's id, beginning `usr_`.")] user: UserId,
        #[graphql(desc = "Keys of all roles that the user has afterwards, at least one.")]
        roles: Vec<String>,
    ) -> Result<User> {
        let viewer = ctx.viewer()?;
        let tx = ctx.write_users().await?;
        let user = user::User::set_roles(&tx, viewer.org, Some(viewer), user, &roles).await?;
        tx.commit().await?;
        Ok(User(user))
    }

    /// Deactivates a member and ends their sessions in this organization. Requires `USER_MANAGE`.
    #[graphql(directive = requires::apply(UserManage))]
    async fn deactivate_user(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The user's id, beginning `usr_`.")] user: UserId,
    ) -> Result<User> {
        let tx = ctx.write_users().await?;
        let user = user::User::deactivate(&tx, ctx.viewer()?, user, ctx.now()).await?;
        tx.commit().await?;
        Ok(User(user))
    }

    /// Ends all sessions of a member in this organization, and returns their number. Requires `USER_MANAGE`.
    #[graphql(directive = requires::apply(UserManage))]
    async fn revoke_user_sessions(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The user's id, beginning `usr_`.")] user: UserId,
    ) -> Result<usize> {
        let viewer = ctx.viewer()?;
        let tx = ctx.write_users().await?;
        let member = user::User::member(&tx, viewer.org, user).await?;
        user::User::require_permissions_of(&tx, viewer, member.id).await?;
        let mut sessions = Session::of_user(&tx, member.id, ctx.now()).await?;
        sessions.retain(|session| session.org == viewer.org);
        for session in &sessions {
            session.end(&tx, EndReason::Revoked, ctx.now()).await?;
        }
        tx.commit().await?;
        Ok(sessions.len())
    }

    /// Creates a custom role, or replaces the name and permissions of the existing role with this key. Requires
    /// `ROLE_MANAGE`.
    #[graphql(directive = requires::apply(RoleManage))]
    async fn save_role(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The role's key, of a-z, 0-9 and -.")] key: String,
        #[graphql(desc = "The role's display name.")] name: String,
        #[graphql(desc = "Permissions of the role; the caller must have all of them.")] permissions: Vec<
            Permission,
        >,
    ) -> Result<Role> {
        let tx = ctx.write_users().await?;
        let role = Role::save(&tx, ctx.viewer()?, &key, &name, &permissions).await?;
        tx.commit().await?;
        Ok(role)
    }

    /// Deletes a custom role that no member has. Requires `ROLE_MANAGE`.
    #[graphql(directive = requires::apply(RoleManage))]
    async fn delete_role(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The role's key, e.g. `operator`.")] key: String,
    ) -> Result<RoleId> {
        let tx = ctx.write_users().await?;
        let id = Role::delete(&tx, ctx.viewer()?, &key).await?;
        tx.commit().await?;
        Ok(id)
    }
}

/// Checks and hashes a password that is set for another user, outside of any transaction.
async fn hash_new(
    ctx: &Context<'_>,
    password: &str,
    email: &str,
    name: &str,
) -> domain::Result<String> {
    ctx.scope().finish().await;
    let context = [email, email.split('@').next().unwrap_or_default(), name];
    ctx.services().identity.hash_new("input.password", password, &context).await
}

/// Batch loader of users by id.
pub(crate) struct UserById;

impl Batch for UserById {
    type Key = UserId;
    type Row = user::User;

    async fn load(scope: &RequestScope, ids: &[UserId]) -> Result<HashMap<UserId, user::User>> {
        let users = user::User::of_ids(&*scope.read().await?, ids).await?;
        Ok(users.into_iter().map(|user| (user.id, user)).collect())
    }
}

/// Batch loader of users' roles in the viewer's organization.
pub(crate) struct RolesOfUser;

impl Batch for RolesOfUser {
    type Key = UserId;
    type Row = Vec<Role>;

    async fn load(scope: &RequestScope, ids: &[UserId]) -> Result<HashMap<UserId, Vec<Role>>> {
        let tx = scope.read().await?;
        let mut roles: HashMap<_, Vec<Role>> = ids.iter().map(|id| (*id, Vec::new())).collect();
        for (user, role) in Role::of_users(&tx, tx.org(), ids).await? {
            roles.entry(user).or_default().push(role);
        }
        Ok(roles)
    }
}

impl Identified for User {
    type Entity = entity::User;

    const REQUIRES: Option<Permission> = None;

    fn row_id(&self) -> Id<entity::User> {
        self.0.id
    }

    async fn find(ctx: &Context<'_>, id: Id<entity::User>) -> Result<Option<Self>> {
        Ok(ctx.load::<UserById>(id).await?.map(Self))
    }
}

impl Identified for Role {
    type Entity = entity::Role;

    const REQUIRES: Option<Permission> = None;

    fn row_id(&self) -> Id<entity::Role> {
        self.id
    }

    async fn find(ctx: &Context<'_>, id: Id<entity::Role>) -> Result<Option<Self>> {
        let roles = Self::list(&*ctx.read().await?, ctx.viewer()?.org).await?;
        Ok(roles.into_iter().find(|role| role.id == id))
    }
}
