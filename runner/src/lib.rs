//! From a playbook's text to a recorded outcome. The journey is one way: text → `Book` → `Plan` → `Run::next` → act →
//! `Event` → journal → `Run::apply` → … → verdict.

pub mod book;
pub mod cli;
pub mod engine;
pub mod event;
pub mod expression;
pub mod journal;
pub mod plan;
pub mod report;
pub mod run;
pub mod secret;
pub mod store;
