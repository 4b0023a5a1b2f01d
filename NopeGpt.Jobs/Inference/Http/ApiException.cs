using Microsoft.AspNetCore.Http;

namespace NopeGpt.Jobs.Inference.Http;

/// <summary>An answer in OpenAI's error format: {"error": {message, type, param, code}}.</summary>
/// <param name="param">The field of the request that is wrong, or null.</param>
internal sealed class ApiException(int status, string message, string? param = null, string? code = null) : Exception(message)
{
    public int Status { get; } = status;

    public object Body { get; } = new { error = new { message, type = status < 500 ? "invalid_request_error" : "server_error", param, code } };

    public static ApiException From(ModelException e) => e.Failure switch
    {
        ModelFailure.Unknown => new(StatusCodes.Status404NotFound, e.Message, "model", "model_not_found"),
        ModelFailure.NoRoom => new(StatusCodes.Status503ServiceUnavailable, e.Message, "model", "overloaded"),
        _ => new(StatusCodes.Status422UnprocessableEntity, e.Message, "model", "model_unusable"),
    };
}
