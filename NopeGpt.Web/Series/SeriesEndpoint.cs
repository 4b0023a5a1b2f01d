using Microsoft.Net.Http.Headers;
using NopeGpt.Model;
using NopeGpt.Web.Api;
using NopeGpt.Web.Live;

namespace NopeGpt.Web.Series;

/// <summary>GET /api/runs/{id}/series?metric=train/loss&amp;x=step|tokens|wall&amp;from=&amp;to=&amp;buckets=&amp;smooth=: the data of a chart, in binary. Several
/// metrics (metric=a&amp;metric=b) come one after the other, as they were at one moment: after the event that X-Last-Sequence names.</summary>
internal static class SeriesEndpoint
{
    public static void Map(IEndpointRouteBuilder runs) => runs.MapGet("/{id}/series", Get);

    private static IResult Get(string id, HttpContext context, RunFeed feed)
    {
        List<Problem> problems = [];
        SeriesQuery query = SeriesQuery.Parse(context.Request.Query, problems);
        if (problems.Count > 0) return ApiProblems.Bad(problems);
        string known = context.Request.Headers.IfNoneMatch.ToString();
        (long Sequence, byte[]? Bytes)? answer = feed.Ask<(long, byte[]?)>(id, (columns, sequence) =>
            known == Tag(sequence) ? (sequence, null) : (sequence, [.. query.Metrics.SelectMany(m => SeriesBuckets.ToBytes(SeriesBuckets.Compute(columns.Points(m, query.Axis), query)))]));
        if (answer is not { } found) return ApiProblems.NoSuchRun(id);
        context.Response.Headers.ETag = Tag(found.Sequence);
        context.Response.Headers.CacheControl = "no-cache"; // the browser keeps it, and asks whether it still holds
        context.Response.Headers["X-Last-Sequence"] = found.Sequence.ToString();
        return found.Bytes is null ? Results.StatusCode(StatusCodes.Status304NotModified) : Results.Bytes(found.Bytes, "application/octet-stream");
    }

    // The run's last event: until the next one, every answer to the same address is the same.
    private static string Tag(long sequence) => $"\"{sequence}\"";
}
