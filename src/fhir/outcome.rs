//! OperationOutcome, which says what is wrong. <https://hl7.org/fhir/R4/operationoutcome.html>

use serde_json::json;

/// An OperationOutcome of one issue.
pub fn outcome(severity: &str, code: &str, text: &str, expression: Option<&str>) -> serde_json::Value {
    let mut issue = json!({"severity": severity, "code": code, "diagnostics": text});
    if let Some(expression) = expression {
        issue["expression"] = json!([expression]);
    }
    json!({"resourceType": "OperationOutcome", "issue": [issue]})
}
