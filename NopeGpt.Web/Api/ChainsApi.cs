using System.Text.Json;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Jobs.Queue;
using NopeGpt.Model;

namespace NopeGpt.Web.Api;

/// <summary>/api/chains and /api/sweeps: several runs at once, all or none.</summary>
internal static class ChainsApi
{
    public static void Map(RouteGroupBuilder api)
    {
        api.MapPost("/chains", ChainAsync);
        api.MapPost("/sweeps", SweepAsync);
    }

    private static async Task<IResult> ChainAsync(HttpRequest request, RunQueue queue, CancellationToken cancel)
    {
        (JsonDocument? document, IResult? refusal) = await JsonBody.ReadAsync(request, cancel);
        if (document is null) return refusal!;
        using (document)
        {
            List<Problem> problems = [];
            JsonFields fields = JsonFields.Of(document.RootElement, problems, "runs", "priority", "tags");
            List<RunConfig> configs = [];
            if (fields.Required("runs", JsonValueKind.Array, "a list of configurations: [{\"kind\": \"prepare\", ...}, ...]") is { } runs)
            {
                foreach (JsonElement run in runs.EnumerateArray())
                {
                    List<Problem> wrong = [];
                    configs.Add(Settings.Bind(run, wrong));
                    problems.AddRange(wrong.Select(p => p with { Field = $"{RunQueue.StepTitle(configs.Count - 1, configs[^1].Kind)}: {p.Field}" }));
                }
            }
            (int priority, IReadOnlyList<string> tags) = (fields.Priority(), fields.Texts("tags"));
            // What could be read is checked too, so that everything wrong is told at once.
            if (problems.Count > 0) return ApiProblems.Bad([.. problems, .. configs.Count > 0 ? queue.ChainProblems(configs, priority, tags).Where(p => problems.All(known => known.Field != p.Field)) : []]);
            return Results.Json(new { runs = await queue.AddChainAsync(configs, priority, tags, cancel) }, statusCode: StatusCodes.Status201Created);
        }
    }

    private static async Task<IResult> SweepAsync(HttpRequest request, RunQueue queue, CancellationToken cancel)
    {
        (JsonDocument? document, IResult? refusal) = await JsonBody.ReadAsync(request, cancel);
        if (document is null) return refusal!;
        using (document)
        {
            List<Problem> problems = [];
            JsonFields fields = JsonFields.Of(document.RootElement, problems, "config", "axes", "confirm", "after", "priority", "tags");
            RunConfig config = new();
            if (fields.Required("config", JsonValueKind.Object, "a configuration: {\"kind\": \"pretrain\", ...}") is { } common)
            {
                List<Problem> wrong = [];
                config = Settings.Bind(common, wrong);
                problems.AddRange(wrong.Select(p => p with { Field = $"config.{p.Field}" }));
            }
            List<SweepAxis> axes = [];
            if (fields.Required("axes", JsonValueKind.Object, "settings with their values: {\"optimizer.learning_rate\": [1e-4, 3e-4], \"seed\": \"1..3\"}") is { } given)
                axes.AddRange(given.EnumerateObject().Select(axis => new SweepAxis(axis.Name, null, axis.Value)));
            (long? confirm, int priority, IReadOnlyList<string> after, IReadOnlyList<string> tags) = (fields.Whole("confirm"), fields.Priority(), fields.Texts("after"), fields.Texts("tags"));
            if (problems.Count > 0) return ApiProblems.Bad([.. problems, .. axes.Count > 0 ? SweepAxis.Problems(config, axes) : []]);
            (string group, IReadOnlyList<string> runs) = await queue.AddSweepAsync(config, axes, confirm, after, priority, tags, cancel);
            return Results.Json(new { group, runs }, statusCode: StatusCodes.Status201Created);
        }
    }
}
