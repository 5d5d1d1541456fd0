//! Tests of the foundations: every table, transactions, lists.

mod db;
mod listing;
mod schema;
mod tenancy;
