using System.Data.Common;
using Microsoft.EntityFrameworkCore;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Queue;
using NopeGpt.Model;

namespace NopeGpt.Web.Api;

/// <summary>Errors of the HTTP interface: problem details (RFC 9457), with every problem of the input listed.</summary>
internal static class ApiProblems
{
    /// <summary>400 with `problems` (field, value, message) in their order and `errors` by field.</summary>
    public static IResult Bad(IReadOnlyList<Problem> problems) => Results.Problem(
        title: "The request has errors.",
        detail: string.Join(" ", problems.Select(p => $"{(p.Field.Length > 0 ? p.Field : "body")} = {(p.Value.Length > 0 ? p.Value : "(empty)")}: {p.Message.TrimEnd('.')}{(p.Message.EndsWith('?') ? "" : ".")}")),
        statusCode: StatusCodes.Status400BadRequest,
        extensions: new Dictionary<string, object?>
        {
            ["problems"] = problems.Select(p => new { field = p.Field, value = p.Value, message = p.Message }).ToArray(),
            ["errors"] = problems.GroupBy(p => p.Field).ToDictionary(g => g.Key, g => g.Select(p => p.Message).ToArray()),
        });

    public static IResult Bad(string field, string value, string message) => Bad([new Problem(field, value, message)]);

    public static IResult NoSuchRun(string id) => Results.Problem(title: "There is no such run.", detail: $"There is no run '{Short(id)}'; GET /api/runs lists them.", statusCode: StatusCodes.Status404NotFound);

    public static IResult Conflict(string detail) => Results.Problem(title: "The run's state does not allow that.", detail: detail, statusCode: StatusCodes.Status409Conflict);

    public static IResult Status(int status, string detail) => Results.Problem(detail, statusCode: status);

    /// <summary>What an endpoint throws, as an answer: mistakes of the caller with their sentence, everything else to the log.</summary>
    public static async ValueTask<object?> Filter(EndpointFilterInvocationContext context, EndpointFilterDelegate next)
    {
        try
        {
            return await next(context);
        }
        catch (ProblemsException e)
        {
            return Bad(e.Problems);
        }
        catch (UserException e)
        {
            return Status(e.ExitCode == ExitCode.DiskFull ? StatusCodes.Status507InsufficientStorage : StatusCodes.Status400BadRequest, e.Message);
        }
        catch (Exception e) when (e is DbException or DbUpdateException)
        {
            string reason = e.GetBaseException().Message.TrimEnd('.');
            context.HttpContext.RequestServices.GetRequiredService<ILogger<RunTable>>().LogWarning("The run table does not answer: {Message}", reason);
            return Status(StatusCodes.Status503ServiceUnavailable, $"The run table is busy ({reason}): another program may hold its database. Nothing was changed; try again.");
        }
        catch (BadHttpRequestException e)
        {
            return Status(e.StatusCode, e.Message);
        }
    }

    /// <summary>A message of the queue as a sentence of its own.</summary>
    public static string Sentence(string text) => char.ToUpperInvariant(text[0]) + text[1..].TrimEnd('.') + ".";

    private static string Short(string text) => text.Length <= 80 ? text : text[..77] + "...";
}
