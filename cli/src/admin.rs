//! `sentryops admin`: manages organizations and users, for the operator of the machine. Its changes are recorded in the
//! audit trail with the system as actor. (`admin/posture`: verification of stored postures, i.e. of all verdicts and
//! the score of each asset.)

use std::{io::Read, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use domain::{
    Db, Origin,
    access::{
        organization::Organization,
        password::{self, Hasher},
        permission::{FLEET, Permission, PermissionSet},
        refusal::Stranger,
        user::{AccountOrigin, CreateUserInput, User, normalise_email},
    },
    entity::UserId,
};
use serde_json::json;

use crate::{
    config::Config,
    database::{self, Stores},
};

mod posture;

/// Arguments of `admin`.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Create an organization and print its id.
    CreateOrganization {
        /// Short name of the organization: a-z, 0-9 and -.
        #[arg(long)]
        slug: String,
        /// Display name of the organization.
        #[arg(long)]
        name: String,
    },
    /// Create a user, or invite the owner of an existing account to the organization.
    CreateUser {
        /// E-mail address of the user.
        #[arg(long)]
        email: String,
        /// Display name of the user.
        #[arg(long)]
        name: String,
        /// Key of a role: viewer, operator, admin, owner, or a custom role. May be repeated.
        #[arg(long, required = true)]
        role: Vec<String>,
        /// Slug of the organization that the user joins.
        #[arg(long, default_value = "default")]
        organization: String,
        /// Read the password from standard input. Without this flag, one is generated and printed.
        #[arg(long)]
        password_stdin: bool,
        /// Invite the owner of the account that the e-mail already has. They become a member when they accept the
        /// invitation, with their own password and with the one given here. If nobody can sign in to the account, because
        /// it is an active member of no organization, it gets this password and joins at once.
        #[arg(long)]
        join_existing: bool,
    },
    /// Set a new password, unlock the account and end all its sessions.
    ResetPassword {
        /// E-mail address of the user.
        #[arg(long)]
        email: String,
        /// Read the password from standard input. Without this flag, one is generated and printed.
        #[arg(long)]
        password_stdin: bool,
    },
    /// Change the e-mail of a user, in every organization.
    SetEmail {
        /// Current e-mail address of the user.
        #[arg(long)]
        email: String,
        /// New e-mail address, which has no account yet.
        #[arg(long)]
        new: String,
    },
    /// Set a member's permissions on the whole installation. Permissions that are not named are revoked.
    Grant {
        /// E-mail address of the user.
        #[arg(long)]
        email: String,
        /// Slug of the organization whose member the user is.
        #[arg(long, default_value = "default")]
        organization: String,
        /// `FLEET_READ` or `FLEET_MANAGE`; may be repeated. Omit it to revoke both.
        #[arg(long)]
        permission: Vec<String>,
    },
    /// List refusals that belong to no organization, newest first: sign-ins with an unknown e-mail, unknown refresh tokens
    /// and API keys. One JSON object per line.
    Refusals {
        /// Number of lines, 1 to 10,000.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10_000))]
        limit: u16,
    },
    /// Compare the stored posture (all verdicts and the score) of every asset with a fresh evaluation.
    /// Exit code 1 if any posture differs; 3 if none differs, but some assets await evaluation.
    VerifyPosture(posture::Arguments),
}

/// A newly created user, with the password for the first sign-in, which is printed once.
pub(crate) struct CreatedUser {
    /// Key of the user's role.
    pub(crate) role: String,
    /// E-mail address for the sign-in.
    pub(crate) email: String,
    /// Password for the first sign-in.
    pub(crate) password: String,
}

pub(crate) async fn run(arguments: Arguments, config: &Config) -> Result<ExitCode> {
    let stores = Stores::for_command(config).await?;
    let result = execute(arguments.action, config, &stores).await;
    stores.stop().await?;
    let (output, code) = result?;
    crate::print(&output);
    Ok(code)
}

async fn execute(action: Action, config: &Config, stores: &Stores) -> Result<(String, ExitCode)> {
    // Only `up` and `migrate` apply migrations, so an outdated schema is an error here.
    let db = stores.pool(2)?;
    database::check(&db).await?;
    let output = match action {
        Action::CreateOrganization { slug, name } => {
            let tx = db.auth(Origin::system()).await?;
            let organization = Organization::create(&tx, &slug, &name, false, crate::now()).await?;
            tx.commit().await?;
            format!("{}\n", organization.id)
        }
        Action::CreateUser { email, name, role, organization, password_stdin, join_existing } => {
            let organization = find_organization(&db, &organization).await?;
            let flags = (password_stdin, join_existing);
            create_user(&db, config, &organization, &email, &name, role, flags).await?
        }
        Action::ResetPassword { email, password_stdin } => {
            let (password, is_generated) = password_for(password_stdin)?;
            let hash = hash(config, &password, &email).await?;
            let tx = db.auth(Origin::system()).await?;
            let id = find_user(&tx, &email).await?;
            User::reset_password(&tx, id, &hash, crate::now()).await?;
            tx.commit().await?;
            if is_generated { format!("{password}\n") } else { String::new() }
        }
        Action::SetEmail { email, new } => {
            let new = normalise_email(&new).context("--new: this is not a valid e-mail address")?;
            let tx = db.auth(Origin::system()).await?;
            let id = find_user(&tx, &email).await?;
            User::set_email(&tx, id, &new).await?;
            tx.commit().await?;
            String::new()
        }
        Action::Grant { email, organization, permission } => {
            let organization = find_organization(&db, &organization).await?;
            let permissions = fleet_permissions(&permission)?;
            let tx = db.auth(Origin::system()).await?;
            let id = find_user(&tx, &email).await?;
            User::grant(&tx, organization.id, id, permissions).await?;
            tx.commit().await?;
            String::new()
        }
        Action::Refusals { limit } => {
            let tx = db.fleet().await?;
            let strangers = Stranger::latest(&tx, limit.into()).await?;
            tx.commit().await?;
            strangers.iter().map(stranger_line).collect()
        }
        Action::VerifyPosture(requested) => return posture::verify(&requested, db).await,
    };
    Ok((output, ExitCode::SUCCESS))
}

/// Returns the refusal for an e-mail that has an account: who made it and when, and how to invite its owner.
fn known_account(email: &str, origin: &AccountOrigin) -> String {
    let made = match &origin.organization {
        Some((slug, name)) => format!("for the organization {slug} ({name})"),
        None => "for an unknown organization".to_owned(),
    };
    let day = origin.created_at.format("%Y-%m-%d");
    format!(
        "--email: {email} already has an account, made on {day} {made}. To invite the account's owner, add --join-existing: \
         they accept with the password printed then, or read from standard input"
    )
}

/// Returns a refusal as a line of JSON.
fn stranger_line(stranger: &Stranger) -> String {
    let Stranger { at, action, details, source_ip, request_id } = stranger;
    let line = json!({ "at": at, "action": action, "details": details, "sourceIp": source_ip, "requestId": request_id });
    format!("{line}\n")
}

async fn create_user(
    db: &Db,
    config: &Config,
    organization: &Organization,
    email: &str,
    name: &str,
    roles: Vec<String>,
    (password_stdin, join_existing): (bool, bool),
) -> Result<String> {
    let tx = db.auth(Origin::system()).await?;
    let origin = match normalise_email(email) {
        Some(email) => User::origin_of(&tx, &email).await?,
        None => None,
    };
    tx.commit().await?;
    match &origin {
        Some(origin) if !join_existing => bail!("{}", known_account(email, origin)),
        None if join_existing => bail!("--join-existing: {email} has no account"),
        _ => {}
    }
    let (password, is_generated) = password_for(password_stdin)?;
    let hash = hash(config, &password, email).await?;
    let input = CreateUserInput {
        email: email.to_owned(),
        name: name.to_owned(),
        password: String::new(),
        roles,
    };
    let tx = db.auth(Origin::system()).await?;
    let user = match origin {
        // Nobody can sign in to this account, and so nobody could accept an invitation.
        Some(origin) if !origin.can_sign_in => {
            User::reset_password(&tx, origin.user, &hash, crate::now()).await?;
            User::join(&tx, organization.id, None, origin.user, &input.roles, crate::now()).await?
        }
        _ => User::create(&tx, organization.id, None, &input, &hash, crate::now()).await?,
    };
    tx.commit().await?;
    Ok(if is_generated { format!("{}\n{password}\n", user.id) } else { format!("{}\n", user.id) })
}

/// Creates a user with the given password, or with a generated password if `password` is `None`.
pub(crate) async fn add_user(
    db: &Db,
    config: &Config,
    organization: &Organization,
    email: &str,
    name: &str,
    role: &str,
    password: Option<String>,
) -> Result<CreatedUser> {
    let password = match password {
        Some(password) => password,
        None => one_time_password()?,
    };
    let hash = hash(config, &password, email).await?;
    let input = CreateUserInput {
        email: email.to_owned(),
        name: name.to_owned(),
        password: String::new(),
        roles: vec![role.to_owned()],
    };
    let tx = db.auth(Origin::system()).await?;
    User::create(&tx, organization.id, None, &input, &hash, crate::now()).await?;
    tx.commit().await?;
    Ok(CreatedUser { role: role.to_owned(), email: email.to_owned(), password })
}

async fn find_organization(db: &Db, slug: &str) -> Result<Organization> {
    let tx = db.auth(Origin::system()).await?;
    let organization = Organization::find_by_slug(&tx, slug).await?;
    tx.commit().await?;
    organization.with_context(|| format!("--organization: no organization has the slug {slug:?}"))
}

async fn find_user(tx: &domain::Tx<domain::base::db::Auth>, email: &str) -> Result<UserId> {
    let normalised =
        normalise_email(email).context("--email: this is not a valid e-mail address")?;
    User::find_by_email(tx, &normalised).await?.context("--email: no user has this e-mail address")
}

fn fleet_permissions(names: &[String]) -> Result<PermissionSet> {
    let mut set = PermissionSet::EMPTY;
    for name in names {
        match Permission::parse(name) {
            Some(permission) if FLEET.contains(permission) => {
                set = set.union(PermissionSet::of(&[permission]));
            }
            Some(_) | None => bail!(
                "--permission: {name:?} is not FLEET_READ or FLEET_MANAGE; grant other permissions through roles"
            ),
        }
    }
    Ok(set)
}

/// Reads the password from standard input, or generates a password. The second value is true for a generated password.
fn password_for(stdin: bool) -> Result<(String, bool)> {
    if !stdin {
        return Ok((one_time_password()?, true));
    }
    let mut password = String::new();
    std::io::stdin()
        .take(4096)
        .read_to_string(&mut password)
        .context("the password cannot be read from standard input")?;
    Ok((password.trim_end_matches(['\r', '\n']).to_owned(), false))
}

async fn hash(config: &Config, password: &str, email: &str) -> Result<String> {
    let local_part = email.split('@').next().unwrap_or_default();
    if let Err(error) = password::check("the password", password, &[email, local_part], false) {
        bail!("{} {}", error.path, error.message);
    }
    let cost = password::Cost {
        memory_kib: config.argon2.memory_kib,
        passes: config.argon2.passes,
        lanes: config.argon2.lanes,
    };
    Ok(Hasher::new(cost, 1)?.hash(password).await?)
}

/// Generates a password of five groups of five characters, about 124 random bits. Characters that look alike are not
/// used.
fn one_time_password() -> Result<String> {
    const ALPHABET: &[u8; 32] = b"23456789abcdefghjkmnpqrstuvwxyz-";
    let mut bytes = [0_u8; 25];
    getrandom::fill(&mut bytes).context("the system returned no random bytes")?;
    let characters: Vec<char> =
        bytes.iter().map(|byte| ALPHABET[usize::from(byte % 31)] as char).collect();
    Ok(characters
        .chunks(5)
        .map(|group| group.iter().collect::<String>())
        .collect::<Vec<_>>()
        .join("-"))
}
