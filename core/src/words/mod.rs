//! Floor 0: the words that every room uses. Values only; no decisions.

pub(crate) mod action;
pub(crate) mod addr;
pub(crate) mod checkpoint;
pub mod config;
pub(crate) mod cx;
pub(crate) mod deadline;
pub(crate) mod event;
pub(crate) mod hearsay;
pub(crate) mod id;
pub(crate) mod judgement;
pub(crate) mod mapping;
pub(crate) mod notice;
pub(crate) mod protocol;
pub(crate) mod punch;
pub(crate) mod relay;
pub(crate) mod sleep;
pub(crate) mod time;
