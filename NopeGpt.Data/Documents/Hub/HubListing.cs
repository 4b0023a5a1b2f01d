using System.Security.Cryptography;
using System.Text;
using System.Text.Json;

namespace NopeGpt.Data.Documents.Hub;

/// <summary>What the Hub says of a data set at one commit.</summary>
internal sealed class HubListing
{
    /// <summary>How often the Hub is asked where an older answer will do.</summary>
    private const int AttemptsWithAnswer = 2;

    private readonly HubClient _client;
    private readonly HubCache _cache;
    private readonly string _dataset;

    private HubListing(HubClient client, HubCache cache, string dataset, JsonElement info)
    {
        (_client, _cache, _dataset) = (client, cache, dataset);
        Commit = Text(info, "sha") is { } sha && IsCommit(sha) ? sha : throw new HubException($"{dataset}: the Hub does not name a commit; check the Hub's address {client.Options.Endpoint}.");
        if (!info.TryGetProperty("cardData", out JsonElement card) || card.ValueKind != JsonValueKind.Object) return;
        Licence = Text(card, "license") ?? (card.TryGetProperty("license", out JsonElement several) && several.ValueKind == JsonValueKind.Array ? string.Join(", ", several.EnumerateArray().Select(l => l.ToString())) : null);
        if (card.TryGetProperty("configs", out JsonElement configs) && configs.ValueKind == JsonValueKind.Array) Subsets = [.. configs.EnumerateArray().Select(SubsetOf).OfType<CardSubset>()];
    }

    public string Commit { get; }

    public string? Licence { get; }

    public IReadOnlyList<CardSubset> Subsets { get; } = [];

    /// <summary>Why the Hub could not be asked what the revision is now, so that it is what it was when that was last possible; null where it was.</summary>
    public string? Unreached { get; private init; }

    /// <summary>Asks what a revision is; a commit that was asked for before is answered from the cache, and so is a branch or tag where the Hub cannot be reached.</summary>
    public static async Task<HubListing> OpenAsync(HubClient client, string dataset, string revision, CancellationToken cancel)
    {
        HubCache cache = new(client.Options.CacheFolder, dataset);
        if (IsCommit(revision) && Kept(cache.Answer(revision, "info")) is { } kept)
            using (kept) return new(client, cache, dataset, kept.RootElement);
        string what = revision == HubName.MainRevision ? dataset : $"{dataset} at revision {revision}";
        using JsonDocument? last = KeptReference(cache, revision) is { } commit ? Kept(cache.Answer(commit, "info")) : null;
        try
        {
            Uri address = client.Address($"/api/datasets/{dataset}/revision/{Uri.EscapeDataString(revision)}");
            (JsonDocument json, _) = await client.GetJsonAsync(address, what, cancel, attempts: last is null ? null : AttemptsWithAnswer).ConfigureAwait(false);
            using (json)
            {
                HubListing listing = new(client, cache, dataset, json.RootElement);
                Keep(cache.Answer(listing.Commit, "info"), json.RootElement.GetRawText());
                Keep(cache.Reference(revision), listing.Commit);
                return listing;
            }
        }
        catch (HubException unreached) when (last is not null && unreached.InnerException is PassingFailure { Unreached: true })
        {
            return new(client, cache, dataset, last.RootElement) { Unreached = unreached.Message };
        }
    }

    /// <summary>All files below a folder.</summary>
    public async Task<IReadOnlyList<HubFile>> FilesAsync(string folder, CancellationToken cancel)
    {
        string answer = _cache.Answer(Commit, "tree-" + Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(folder)))[..16]);
        if (Kept(answer) is { } kept)
            using (kept) return [.. kept.RootElement.EnumerateArray().Select(FileOf).OfType<HubFile>()];
        string what = folder.Length == 0 ? $"the files of {_dataset}" : $"the files of {_dataset} in {folder}";
        List<HubFile> files = [];
        List<string> raw = [];
        Uri? next = _client.Address($"/api/datasets/{_dataset}/tree/{Commit}{string.Concat(folder.Split('/', StringSplitOptions.RemoveEmptyEntries).Select(p => "/" + Uri.EscapeDataString(p)))}?recursive=true&expand=false");
        HashSet<Uri> seen = [];
        while (next is not null && seen.Add(next))
        {
            (JsonDocument json, next) = await _client.GetJsonAsync(next, what, cancel).ConfigureAwait(false);
            using (json)
            {
                if (json.RootElement.ValueKind != JsonValueKind.Array) throw new HubException($"{what}: the answer is not a list; check the Hub's address {_client.Options.Endpoint}.");
                raw.AddRange(json.RootElement.EnumerateArray().Select(e => e.GetRawText()));
                files.AddRange(json.RootElement.EnumerateArray().Select(FileOf).OfType<HubFile>());
            }
        }
        Keep(answer, $"[{string.Join(',', raw)}]");
        return files;
    }

    private static HubFile? FileOf(JsonElement entry)
    {
        if (Text(entry, "type") != "file" || Text(entry, "path") is not { } path || Text(entry, "oid") is not { } id || !IsHash(id)) return null;
        bool large = entry.TryGetProperty("lfs", out JsonElement lfs) && lfs.ValueKind == JsonValueKind.Object;
        string? sha256 = large && Text(lfs, "oid") is { Length: 64 } hash && IsHash(hash) ? hash.ToLowerInvariant() : null;
        long? size = Number(large && lfs.TryGetProperty("size", out _) ? lfs : entry, "size");
        return size is >= 0 ? new(path, size.Value, id.ToLowerInvariant(), sha256) : null;
    }

    private static CardSubset? SubsetOf(JsonElement config)
    {
        if (Text(config, "config_name") is not { } name) return null;
        List<(string, string[])> splits = [];
        if (config.TryGetProperty("data_files", out JsonElement files))
        {
            // One pattern or a list of them means the split to train on; a list of objects names its splits.
            JsonElement[] items = files.ValueKind == JsonValueKind.Array ? [.. files.EnumerateArray()] : [files];
            string[] plain = [.. items.Where(i => i.ValueKind == JsonValueKind.String).Select(i => i.GetString()!)];
            if (plain.Length > 0) splits.Add((DataFiles.Train, plain));
            foreach (JsonElement item in items.Where(i => i.ValueKind == JsonValueKind.Object))
                if (item.TryGetProperty("path", out JsonElement path)) splits.Add((Text(item, "split") ?? DataFiles.Train, Texts(path)));
        }
        string? folder = Text(config, "data_dir")?.Trim('/');
        return new(name, config.TryGetProperty("default", out JsonElement isDefault) && isDefault.ValueKind == JsonValueKind.True, folder,
            [.. splits.Select(s => (s.Item1, folder is null ? s.Item2 : [.. s.Item2.Select(p => $"{folder}/{p}")]))]);
    }

    private static string[] Texts(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.String => [value.GetString()!],
        JsonValueKind.Array => [.. value.EnumerateArray().Where(v => v.ValueKind == JsonValueKind.String).Select(v => v.GetString()!)],
        _ => [],
    };

    private static string? Text(JsonElement element, string name) =>
        element.ValueKind == JsonValueKind.Object && element.TryGetProperty(name, out JsonElement value) && value.ValueKind == JsonValueKind.String ? value.GetString() : null;

    private static long? Number(JsonElement element, string name) =>
        element.TryGetProperty(name, out JsonElement value) && value.ValueKind == JsonValueKind.Number && value.TryGetInt64(out long number) ? number : null;

    private static bool IsCommit(string text) => text.Length == 40 && IsHash(text);

    private static bool IsHash(string text) => text.Length is >= 1 and <= 128 && text.All(char.IsAsciiHexDigit);

    private static string? KeptReference(HubCache cache, string revision)
    {
        string path = cache.Reference(revision);
        return File.Exists(path) && File.ReadAllText(path) is { } commit && IsCommit(commit) ? commit : null;
    }

    private static JsonDocument? Kept(string path)
    {
        try
        {
            return File.Exists(path) ? JsonDocument.Parse(File.ReadAllBytes(path)) : null;
        }
        catch (JsonException)
        {
            // Damaged on the disk: ask again.
            return null;
        }
    }

    private static void Keep(string path, string text)
    {
        using AsideFile file = new(path);
        file.Stream.Write(Encoding.UTF8.GetBytes(text));
        file.Complete();
    }
}
