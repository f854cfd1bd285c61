//! How a request is refused: the envelope, its status, and the headers that tell an SDK whether to try again.

use axum::Json;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use capstan_api::ErrorCode;
use capstan_api::envelope::Envelope;
use capstan_api::error::ErrorSource;

/// Seconds after which one who has no room may be asked again.
const RETRY_AFTER_SECONDS: u32 = 1;

/// A refusal on its way out. Its [`ErrorCode`] goes along as an extension of the response, to be counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Decides the status, and whether the same request may succeed later.
    pub code: ErrorCode,
    /// What is wrong, with the field and the limit, and what to do.
    pub message: String,
    /// The place in the request's body, as a JSON pointer.
    pub pointer: Option<String>,
    /// The header that is wrong, by its name.
    pub header: Option<String>,
}

impl Refused {
    /// A refusal of the request as a whole.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), pointer: None, header: None }
    }

    /// A refusal of one field of the body.
    #[must_use]
    pub fn at(code: ErrorCode, pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self { pointer: Some(pointer.into()), ..Self::new(code, message) }
    }

    /// A refusal of a header.
    #[must_use]
    pub fn in_header(code: ErrorCode, header: impl Into<String>, message: impl Into<String>) -> Self {
        Self { header: Some(header.into()), ..Self::new(code, message) }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retryable = self.code.is_retryable();
        let Self { code, message, pointer, header } = self;
        let source = (pointer.is_some() || header.is_some()).then_some(ErrorSource { pointer, header });
        let mut response = (status, Json(Envelope::failure(code, message, source))).into_response();
        // To be counted.
        response.extensions_mut().insert(code);
        let headers = response.headers_mut();
        if retryable {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS.into());
        } else if status == StatusCode::CONFLICT {
            // SDKs retry a 409; a paused queue does not change that soon.
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        response
    }
}

/// The answer to a path that there is not.
pub async fn no_route(method: Method, uri: Uri) -> Refused {
    Refused::new(ErrorCode::NoRoute, format!("no route for {method} {:.200}", uri.path()))
}

/// The answer to a method that a path does not take. What it takes instead is in the header `Allow`, which the router
/// adds. That is also the answer to OPTIONS, a browser's question before a request from another site: there is no CORS.
pub async fn not_allowed(method: Method, uri: Uri) -> Refused {
    let message = format!("{:.200} does not take {method}; see the header Allow", uri.path());
    Refused::new(ErrorCode::MethodNotAllowed, message)
}
