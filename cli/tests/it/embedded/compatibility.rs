//! Data folders of an earlier version: the existing keys and passwords are used, and none is generated again.
//!
//! Rows are not included, because a database is too large to store here. `loadtests upgrade` tests a whole folder of an
//! older binary.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

use super::Folder;
use crate::{
    client::{Client, own_address},
    server::{Api, run, text},
    team::{PASSWORD, Person, sign_in},
};

/// Files that the previous version generated, byte for byte. The secrets are valid nowhere else.
const SECRETS: [(&str, &str); 3] = [
    (
        "passwords",
        "admin=oN7DKvX24jHSNMN14YSpElgku6oyeLnuWCCG0ij07JI\n\
         owner=WaPdjPf5HeZYnsaPdvT7CtRcZ6Y345F-AvwTAec6IGs\n\
         app=Xn1l6N99Cpr_iwOMKIqzNn4A91jMwW0biZEfQgpnzys\n\
         redis=HRB_PZt2buZ2IMb3KZoibCD0OrzI7GpMKGDBss4RuRg\n",
    ),
    ("secrets/encryption_keys", "757cbd0a:n4yS6prttqEtiaP1Gt0_xoDFAE_KBMf3Z6KuHveqExU\n"),
    ("secrets/jwt_keys", "23c56b7b:hxmzf8picpZ6cpJciTLt8qvQ0sM3B49aPcvnalYZuWk\n"),
];
/// Entries of the folder after a complete run of the previous version.
const LAYOUT: [&str; 7] =
    ["lock", "log", "passwords", "postgres", "postgres.conf", "redis", "secrets"];

/// Creates a folder with the files that the previous version wrote before its cluster.
fn lay() -> Folder {
    let folder = Folder::new();
    let data = folder.data();
    DirBuilder::new().mode(0o755).create(&data).unwrap();
    DirBuilder::new().mode(0o700).create(data.join("secrets")).unwrap();
    for (name, text) in SECRETS {
        let mut file = OpenOptions::new();
        file.write(true).create_new(true).mode(0o600);
        file.open(data.join(name)).unwrap().write_all(text.as_bytes()).unwrap();
    }
    folder
}

/// Creates a user with `admin`, run beside the instance, and signs in.
async fn person(folder: &Folder, up: &Api) -> Person {
    let email = "kept@up.test";
    let create = ["admin", "create-user", "--email", email, "--name", "K", "--role", "viewer"];
    let visit = run(folder.command(&[&create[..], &["--password-stdin"]].concat()), PASSWORD);
    assert!(visit.status.success(), "{}", text(&visit.stderr));
    sign_in(&Client::new(up, own_address()), "", email).await
}

#[tokio::test]
async fn secrets_of_before_stay_as_they_were() {
    let folder = lay();
    let mut up = folder.up().await;
    assert!(up.end().await.success());
    for (name, text) in SECRETS {
        let path = folder.data().join(name);
        assert_eq!(fs::read_to_string(&path).unwrap(), text, "{name}");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600, "{name}");
    }
    let secrets = fs::read_dir(folder.data().join("secrets")).unwrap();
    assert_eq!(secrets.count(), 2, "no key ring more");
}

#[tokio::test]
async fn the_layout_is_that_of_before() {
    let folder = lay();
    let mut up = folder.up().await;
    assert!(up.end().await.success());
    let entries = fs::read_dir(folder.data()).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, LAYOUT);
}

#[tokio::test]
async fn tokens_are_signed_with_the_key_of_before() {
    let folder = lay();
    let mut up = folder.up().await;
    let person = person(&folder, &up).await;
    let (header, _) = person.access.split_once('.').unwrap();
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    assert_eq!(header["kid"], "23c56b7b");
    assert!(up.end().await.success());
}

#[tokio::test]
async fn postgres_opens_with_the_password_of_before() {
    let folder = lay();
    let mut up = folder.up().await;
    let noted = fs::read_to_string(folder.data().join("postgres/postmaster.pid")).unwrap();
    let mut config = tokio_postgres::Config::new();
    config.host_path(noted.lines().nth(4).unwrap()).user("postgres").dbname("sentryops");
    config.password("oN7DKvX24jHSNMN14YSpElgku6oyeLnuWCCG0ij07JI");
    let (_client, _connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    assert!(up.end().await.success());
}
