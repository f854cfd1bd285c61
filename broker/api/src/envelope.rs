//! The envelope of every answer of the data plane.

use serde::{Deserialize, Serialize};

use crate::error::{ErrorCode, ErrorEntry, ErrorSource};

/// Cloudflare's API v4 envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope<T> {
    /// Whether `result` is the answer.
    pub success: bool,
    /// Why there is none; empty on success.
    pub errors: Vec<ErrorEntry>,
    /// Always empty.
    pub messages: Vec<String>,
    /// The answer; `null` on failure.
    #[serde(default = "Option::default")]
    pub result: Option<T>,
    /// Paging of a list; Capstan always answers whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_info: Option<ResultInfo>,
}

/// Paging of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultInfo {
    pub page: u32,
    pub per_page: u32,
    pub count: u32,
    pub total_count: u32,
    pub total_pages: u32,
}

impl<T> Envelope<T> {
    /// A successful answer.
    pub const fn success(result: T) -> Self {
        Self {
            success: true,
            errors: Vec::new(),
            messages: Vec::new(),
            result: Some(result),
            result_info: None,
        }
    }
}

impl Envelope<()> {
    /// A refusal. `source` names the place in the request, where there is one.
    #[must_use]
    pub fn failure(code: ErrorCode, message: impl Into<String>, source: Option<ErrorSource>) -> Self {
        let entry = ErrorEntry { code: code.code(), message: message.into(), source };
        Self { success: false, errors: vec![entry], messages: Vec::new(), result: None, result_info: None }
    }
}
