//! From a playbook's text to a recorded outcome. The journey is one way: text → `Book` → `Plan` → `Run::next` → act →
//! `Event` → journal → `Run::apply` → … → verdict.

pub mod book;
pub mod expression;
pub mod plan;
pub mod event;
pub mod run;
pub mod journal;
pub mod secret;
pub mod store;
pub mod engine;
pub mod report;
pub mod cli;
