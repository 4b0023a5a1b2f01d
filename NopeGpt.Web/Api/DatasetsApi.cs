using System.Text.Json;
using System.Text.Json.Nodes;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Jobs.Datasets;
using NopeGpt.Jobs.Queue;

namespace NopeGpt.Web.Api;

/// <summary>/api/datasets: what the store has of prepared data sets. One is made by a run: POST /api/runs with kind prepare.</summary>
internal static class DatasetsApi
{
    public static void Map(IEndpointRouteBuilder app)
    {
        RouteGroupBuilder datasets = app.MapGroup("/api/datasets").AddEndpointFilter(ApiProblems.Filter).DisableAntiforgery();
        datasets.MapGet("", (Store store) => Results.Json(new DatasetCatalog(store).Datasets().Select(d => DatasetView.Of(d, whole: false)), DatasetView.Json));
        datasets.MapGet("/{name}", (string name, Store store) => new DatasetCatalog(store).Dataset(name) is { } found ? Results.Json(DatasetView.Of(found, whole: true), DatasetView.Json) : NoSuchDataset(name));
        datasets.MapDelete("/{name}", DeleteAsync);
    }

    private static async Task<IResult> DeleteAsync(string name, Store store, RunQueue queue, CancellationToken cancel)
    {
        DatasetCatalog catalog = new(store);
        if (catalog.Dataset(name) is null) return NoSuchDataset(name);
        if (await DatasetUse.OfDatasetAsync(name, queue, store, cancel) is { } run) return ApiProblems.Conflict($"Run {run.Title} needs the data set {name}: stop it first.");
        catalog.DeleteDataset(name);
        return Results.NoContent();
    }

    private static IResult NoSuchDataset(string name) =>
        Results.Problem(title: "There is no such data set.", detail: $"There is no data set '{(name.Length <= 80 ? name : name[..77] + "...")}'; GET /api/datasets lists them.", statusCode: StatusCodes.Status404NotFound);
}

/// <summary>A data set as the HTTP interface tells it. The names are a contract. Of one whose dataset.json cannot be read all but the first five are 0 or null.</summary>
/// <param name="Problem">Why it cannot be used; null where nothing is seen to be wrong.</param>
/// <param name="Bytes">On the disk.</param>
/// <param name="Kind">text, chat or preference.</param>
/// <param name="Documents">Or conversations.</param>
/// <param name="Statistics">Lengths and repetitions; null in lists, and in data sets that were made before this was kept. Likewise the rest.</param>
/// <param name="Recipe">In the names of run.json.</param>
internal sealed record DatasetView(
    string Name, string Folder, string? Problem, long Bytes, DateTimeOffset Made, string? Kind, long Documents, long TextBytes, long Tokens, double BytesPerToken, int VocabularySize, string? TokenizerHash,
    string? Source, string? Tokenizer, string? Columns, string? Origin, string? Licence, string? RunId, JsonNode? Statistics, JsonNode? Reading, JsonNode? Chat, JsonNode? Recipe)
{
    public static JsonSerializerOptions Json { get; } = new(JsonSerializerDefaults.Web)
    {
        Converters = { new System.Text.Json.Serialization.JsonStringEnumConverter(JsonNamingPolicy.SnakeCaseLower) },
    };

    public static DatasetView Of(DatasetEntry entry, bool whole)
    {
        DatasetInfo? info = entry.Info;
        return new DatasetView(
            entry.Name, entry.Folder, entry.Problem, entry.Bytes, entry.Made, info is null ? null : Settings.SnakeCase(info.Kind.ToString()), info?.Documents ?? 0, info?.TextBytes ?? 0, info?.Tokens ?? 0,
            info?.BytesPerToken ?? 0, info?.VocabularySize ?? 0, info?.TokenizerHash, info?.Recipe.Source, info?.Recipe.Tokenizer, info?.Columns, info?.Origin, info?.Licence, info?.RunId,
            whole ? Node(info?.Statistics) : null, whole ? Node(info?.Reading) : null, whole ? Node(info?.Chat) : null, whole && info is not null ? JsonSerializer.SerializeToNode(info.Recipe, Settings.Json) : null);
    }

    private static JsonNode? Node<T>(T? value) => value is null ? null : JsonSerializer.SerializeToNode(value, Json);
}
