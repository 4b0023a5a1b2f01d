using System.Text.Json;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Jobs.Queue;

namespace NopeGpt.Web.Api;

/// <summary>/api/runs/{id}/... and /api/queue: order, copies, words of people, the trash.</summary>
internal static class QueueApi
{
    private static readonly string[] Places = [.. Enum.GetNames<QueueMove>().Select(Settings.SnakeCase)];

    /// <param name="api">The group /api.</param>
    public static void Map(RouteGroupBuilder api)
    {
        RouteGroupBuilder run = api.MapGroup("/runs/{id}");
        run.MapPost("/fork", ForkAsync);
        run.MapPost("/duplicate", DuplicateAsync);
        run.MapPost("/move", MoveAsync);
        run.MapPost("/start", (string id, RunViews views, RunQueue queue, CancellationToken cancel) => ActAsync(id, views, () => queue.StartAsync(id, cancel), cancel));
        run.MapPost("/pin", PinAsync);
        run.MapPost("/restore", RestoreAsync);
        run.MapPatch("", ChangeAsync);
        run.MapDelete("", DeleteAsync);
        api.MapGet("/trash", (RunQueue queue) => Results.Json(queue.Trashed().Select(t => new { t.Id, t.Name, t.Deleted, sizeBytes = t.Bytes }), RunView.Json));
        api.MapGet("/queue", (RunQueue queue) => Settled(queue.Settings));
        api.MapPut("/queue", SetAsync);
    }

    private static async Task<IResult> ForkAsync(string id, HttpRequest request, RunViews views, RunQueue queue, CancellationToken cancel)
    {
        (RequestFields? fields, IResult? refusal) = await RequestFields.ReadAsync(request, mayBeEmpty: true, cancel, "step", "changes");
        if (fields is null) return refusal!;
        (long? step, JsonElement? changes) = (fields.Whole("step", 0, long.MaxValue), fields.Object("changes"));
        return await CopyAsync(id, fields, views, () => queue.ForkAsync(id, step, changes, cancel), cancel);
    }

    private static async Task<IResult> DuplicateAsync(string id, HttpRequest request, RunViews views, RunQueue queue, CancellationToken cancel)
    {
        (RequestFields? fields, IResult? refusal) = await RequestFields.ReadAsync(request, mayBeEmpty: true, cancel, "changes");
        if (fields is null) return refusal!;
        JsonElement? changes = fields.Object("changes");
        return await CopyAsync(id, fields, views, () => queue.DuplicateAsync(id, changes, cancel), cancel);
    }

    private static async Task<IResult> CopyAsync(string id, RequestFields fields, RunViews views, Func<Task<RunRow>> copy, CancellationToken cancel)
    {
        if (fields.Refusal is { } wrong) return wrong;
        if (await views.FindAsync(id, cancel) is null) return ApiProblems.NoSuchRun(id);
        RunRow made;
        try { made = await copy(); }
        catch (UserException e) when (e.ExitCode != ExitCode.DiskFull) { return ApiProblems.Conflict(ApiProblems.Sentence(e.Message)); }
        return Results.Created($"/api/runs/{made.Id}", new { id = made.Id });
    }

    private static async Task<IResult> MoveAsync(string id, HttpRequest request, RunViews views, RunQueue queue, CancellationToken cancel)
    {
        (RequestFields? fields, IResult? refusal) = await RequestFields.ReadAsync(request, mayBeEmpty: true, cancel, "to");
        if (fields is null) return refusal!;
        string? to = fields.Has("to") ? fields.Text("to") : request.Query["to"].ToString();
        if (fields.Refusal is { } wrong) return wrong;
        if (!Places.Contains(to)) return ApiProblems.Bad("to", to is null ? "" : to.Length <= 80 ? to : to[..77] + "...", $"must be one of {string.Join(", ", Places)}");
        return await ActAsync(id, views, () => queue.MoveAsync(id, Enum.Parse<QueueMove>(to!, ignoreCase: true), cancel), cancel);
    }

    private static async Task<IResult> PinAsync(string id, HttpRequest request, RunViews views, RunQueue queue, CancellationToken cancel)
    {
        (RequestFields? fields, IResult? refusal) = await RequestFields.ReadAsync(request, mayBeEmpty: false, cancel, "step", "pinned");
        if (fields is null) return refusal!;
        (long? step, bool? pinned) = (fields.Whole("step", 0, long.MaxValue), fields.YesOrNo("pinned"));
        fields.Require("step", "must be the step of a checkpoint");
        if (fields.Refusal is { } wrong) return wrong;
        if (step is null) return ApiProblems.Bad("step", "null", "must be the step of a checkpoint");
        return await ActAsync(id, views, () => queue.PinAsync(id, step.Value, pinned ?? true, cancel), cancel);
    }

    private static async Task<IResult> ChangeAsync(string id, HttpRequest request, RunViews views, RunQueue queue, CancellationToken cancel)
    {
        (RequestFields? fields, IResult? refusal) = await RequestFields.ReadAsync(request, mayBeEmpty: false, cancel, "priority", "held", "not_before", "tags", "notes");
        if (fields is null) return refusal!;
        RunChange change = new((int?)fields.Whole("priority", -RunQueue.HighestPriority, RunQueue.HighestPriority), fields.YesOrNo("held"), fields.Time("not_before"), Tags: fields.Texts("tags"), Notes: fields.Text("notes"));
        // null takes the time back.
        change = change with { AtAnyTime = fields.Has("not_before") && change.NotBefore is null };
        if (fields.Refusal is { } wrong) return wrong;
        if (await views.FindAsync(id, cancel) is null) return ApiProblems.NoSuchRun(id);
        await queue.ChangeAsync(id, change, cancel);
        return await views.AnswerAsync(id, StatusCodes.Status200OK, cancel);
    }

    private static async Task<IResult> DeleteAsync(string id, HttpRequest request, RunViews views, RunQueue queue, CancellationToken cancel)
    {
        string force = request.Query["force"].ToString();
        if (force.Length > 0 && !bool.TryParse(force, out _)) return ApiProblems.Bad("force", force.Length <= 80 ? force : force[..77] + "...", "must be true or false");
        if (await views.FindAsync(id, cancel) is null) return ApiProblems.NoSuchRun(id);
        try { await queue.DeleteAsync(id, force.Length > 0 && bool.Parse(force), cancel); }
        catch (UserException e) when (e.ExitCode != ExitCode.DiskFull) { return ApiProblems.Conflict(ApiProblems.Sentence(e.Message)); }
        return Results.NoContent();
    }

    private static async Task<IResult> RestoreAsync(string id, RunViews views, RunQueue queue, CancellationToken cancel)
    {
        if (!Store.IsName(id) || queue.Trash.All(t => t.Id != id))
            return Results.Problem(title: "There is no such run in the trash.", detail: $"There is no run '{(id.Length <= 80 ? id : id[..77] + "...")}' in the trash; GET /api/trash lists them.", statusCode: StatusCodes.Status404NotFound);
        return await ActAsync(id, views, () => queue.RestoreAsync(id, cancel), cancel, known: false);
    }

    private static async Task<IResult> SetAsync(HttpRequest request, RunQueue queue, CancellationToken cancel)
    {
        (RequestFields? fields, IResult? refusal) = await RequestFields.ReadAsync(request, mayBeEmpty: false, cancel, "paused", "stop_at_failure", "reason");
        if (fields is null) return refusal!;
        (bool? paused, bool? stops) = (fields.YesOrNo("paused"), fields.YesOrNo("stop_at_failure"));
        return fields.Refusal ?? Settled(queue.Change(paused, stops));
    }

    private static IResult Settled(QueueSettings now) => Results.Json(new { paused = now.Paused, stop_at_failure = now.StopAtFailure, reason = now.Reason });

    /// <summary>Does something to a run, and answers with how it is then.</summary>
    private static async Task<IResult> ActAsync(string id, RunViews views, Func<Task> act, CancellationToken cancel, bool known = true)
    {
        if (known && await views.FindAsync(id, cancel) is null) return ApiProblems.NoSuchRun(id);
        try { await act(); }
        catch (UserException e) when (e.ExitCode != ExitCode.DiskFull) { return ApiProblems.Conflict(ApiProblems.Sentence(e.Message)); }
        return await views.AnswerAsync(id, StatusCodes.Status200OK, cancel);
    }
}
