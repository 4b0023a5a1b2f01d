using System.Text.Json;
using System.Text.Json.Nodes;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Jobs.Queue;
using NopeGpt.Model;
using NopeGpt.Web.Live;
using NopeGpt.Web.Series;

namespace NopeGpt.Web.Api;

/// <summary>/api: run control for programs. Everything the pages can do to a run can be done here.</summary>
internal static class RunsApi
{
    public static void Map(IEndpointRouteBuilder app)
    {
        RouteGroupBuilder api = app.MapGroup("/api").AddEndpointFilter(ApiProblems.Filter).DisableAntiforgery();
        api.MapPost("/quickstart", QuickstartAsync);
        ChainsApi.Map(api);
        RouteGroupBuilder runs = api.MapGroup("/runs");
        runs.MapPost("", AddAsync);
        runs.MapGet("", ListAsync);
        runs.MapGet("/{id}", GetAsync);
        runs.MapPost("/{id}/stop", StopAsync);
        runs.MapPost("/{id}/resume", ResumeAsync);
        runs.MapGet("/{id}/events", Events);
        runs.MapGet("/{id}/log", LogEndpoint.GetAsync);
        SeriesEndpoint.Map(runs);
        QueueApi.Map(api);
        // Without this, a mistyped address would get the page "not found" of the dashboard.
        app.Map("/api/{**rest}", (HttpRequest request) => ApiProblems.Status(StatusCodes.Status404NotFound, $"There is nothing at {request.Method} {request.Path}."));
    }

    private static async Task<IResult> QuickstartAsync(HttpRequest request, RunQueue queue, CancellationToken cancel)
    {
        (RequestOptions? options, IResult? refusal) = await RequestOptions.ReadAsync(request, ("size", JsonValueKind.String), cancel);
        if (options is null) return refusal!;
        string size = options.Text.Length > 0 ? options.Text : "default";
        if (!Quickstart.Sizes.Contains(size)) return ApiProblems.Bad("size", size, $"must be one of {string.Join(", ", Quickstart.Sizes)}");
        return Results.Json(new { runs = await queue.AddQuickstartAsync(size, cancel) });
    }

    private static async Task<IResult> AddAsync(HttpRequest request, RunQueue queue, CancellationToken cancel)
    {
        (JsonDocument? document, IResult? refusal) = await JsonBody.ReadAsync(request, cancel);
        if (document is null) return refusal!;
        using (document)
        {
            List<Problem> problems = [];
            (JsonElement json, IReadOnlyList<string> after) = TakeAfter(document.RootElement, problems);
            RunConfig config = Settings.Bind(json, problems);
            // The values that could be read are checked too, so that everything wrong is told at once.
            problems.AddRange((await queue.ProblemsAsync(config, after, cancel)).Where(p => problems.All(known => known.Field != p.Field)).ToList());
            if (problems.Count > 0) return ApiProblems.Bad(problems);
            RunRow row = await queue.AddAsync(config, after, cancel);
            return Results.Created($"/api/runs/{row.Id}", new { id = row.Id });
        }
    }

    /// <summary>Beside its settings the body may name runs that must have completed first: "after": [ids].</summary>
    private static (JsonElement Config, IReadOnlyList<string> After) TakeAfter(JsonElement body, List<Problem> problems)
    {
        if (body.ValueKind != JsonValueKind.Object || !body.TryGetProperty("after", out JsonElement given)) return (body, []);
        JsonObject config = JsonObject.Create(body)!;
        config.Remove("after");
        JsonElement settings = JsonSerializer.SerializeToElement(config);
        if (given.ValueKind == JsonValueKind.Array && given.EnumerateArray().All(id => id.ValueKind == JsonValueKind.String)) return (settings, [.. given.EnumerateArray().Select(id => id.GetString()!)]);
        problems.Add(new Problem("after", given.GetRawText() is { Length: <= 80 } all ? all : given.GetRawText()[..77] + "...", "must be a list of run ids"));
        return (settings, []);
    }

    private static async Task<IResult> ListAsync(HttpRequest request, RunViews views, CancellationToken cancel)
    {
        List<Problem> problems = [];
        RunState? state = Choice<RunState>(request, "state", problems);
        RunKind? kind = Choice<RunKind>(request, "kind", problems);
        if (problems.Count > 0) return ApiProblems.Bad(problems);
        return Results.Json(await views.ListAsync(state, kind, cancel), RunView.Json);
    }

    private static Task<IResult> GetAsync(string id, RunViews views, CancellationToken cancel) => views.AnswerAsync(id, StatusCodes.Status200OK, cancel);

    private static async Task<IResult> StopAsync(string id, HttpRequest request, RunQueue queue, RunViews views, CancellationToken cancel)
    {
        (RequestOptions? options, IResult? refusal) = await RequestOptions.ReadAsync(request, ("kill", JsonValueKind.True), cancel);
        if (options is null) return refusal!;
        string kill = options.Text;
        if (kill.Length > 0 && !bool.TryParse(kill, out _)) return ApiProblems.Bad("kill", kill, "must be true or false");
        StopRequest how = kill.Length > 0 && bool.Parse(kill) ? StopRequest.Kill : StopRequest.Save;
        if (await views.FindAsync(id, cancel) is not { } row) return ApiProblems.NoSuchRun(id);
        if (RunStates.Ended.Contains(row.State)) return ApiProblems.Conflict($"Run {row.Title} is {Settings.SnakeCase(row.State.ToString())}: there is nothing to stop.");
        await queue.StopAsync(id, how, cancel);
        return await views.AnswerAsync(id, StatusCodes.Status202Accepted, cancel);
    }

    private static async Task<IResult> ResumeAsync(string id, RunQueue queue, RunViews views, CancellationToken cancel)
    {
        if (await views.FindAsync(id, cancel) is null) return ApiProblems.NoSuchRun(id);
        try { await queue.ResumeAsync(id, cancel); }
        catch (UserException e) { return ApiProblems.Conflict(ApiProblems.Sentence(e.Message)); }
        return await views.AnswerAsync(id, StatusCodes.Status202Accepted, cancel);
    }

    private static IResult Events(string id, HttpRequest request, RunFeed feed, Store store)
    {
        string text = request.Query["after"].ToString();
        if (!long.TryParse(text.Length == 0 ? "0" : text, out long after) || after < 0) return ApiProblems.Bad("after", text, "must be a whole number from 0: the sequence number of the last event you know");
        if (!RunFolder.TryOpen(store, id, out _)) return ApiProblems.NoSuchRun(id);
        return Results.Json(feed.Events(id, after), TrainingEvent.Json);
    }

    private static T? Choice<T>(HttpRequest request, string name, List<Problem> problems) where T : struct, Enum
    {
        string text = request.Query[name].ToString();
        if (text.Length == 0) return null;
        foreach (T value in Enum.GetValues<T>())
        {
            if (value.ToString().Equals(text, StringComparison.OrdinalIgnoreCase)) return value;
        }
        problems.Add(new Problem(name, text.Length <= 80 ? text : text[..77] + "...", $"must be one of {string.Join(", ", Enum.GetNames<T>())}"));
        return null;
    }
}
