using System.Text.Json;
using NopeGpt.Data;
using NopeGpt.Data.Documents.Hub;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs.Datasets;

namespace NopeGpt.Jobs.Tests.Commands;

/// <summary>`data list` and `data inspect` as processes.</summary>
public sealed class DataVerbsTests(PreparedStore prepared) : IClassFixture<PreparedStore>
{
    private string[] Root => ["--root", prepared.Store.Root];

    private static Task<(int Code, string Output, string Errors)> RunAsync(params string[] arguments) => NopeGptProcess.RunAsync(["data", .. arguments]);

    private async Task<JsonElement> InspectAsync(params string[] arguments)
    {
        (int code, string output, string errors) = await RunAsync(["inspect", .. arguments, "--json", .. Root]);
        Assert.True(code == 0, errors);
        return JsonDocument.Parse(output).RootElement;
    }

    [Fact]
    public async Task The_list_has_the_stores_data_sets_and_the_known_ones()
    {
        string damaged = prepared.Copy(PreparedStore.Stories);
        await File.WriteAllTextAsync(Path.Combine(damaged, DatasetInfo.FileName), "{");
        (int code, string output, string errors) = await RunAsync(["list", "--json", .. Root]);
        Assert.True(code == 0, errors);
        JsonElement json = JsonDocument.Parse(output).RootElement;
        Dictionary<string, JsonElement> datasets = json.GetProperty("datasets").EnumerateArray().ToDictionary(d => d.GetProperty("name").GetString()!);
        foreach ((string name, string kind) in new[] { (PreparedStore.Stories, "text"), (PreparedStore.Talks, "chat") })
        {
            DatasetInfo info = DatasetInfo.Read(prepared.Store.DatasetFolder(name));
            JsonElement d = datasets[name];
            Assert.Equal((kind, info.Documents, info.Tokens, info.VocabularySize, name, info.TokenizerHash),
                (d.GetProperty("kind").GetString(), d.GetProperty("documents").GetInt64(), d.GetProperty("tokens").GetInt64(), d.GetProperty("vocabulary_size").GetInt32(), d.GetProperty("tokenizer").GetString(), d.GetProperty("tokenizer_hash").GetString()));
            Assert.Equal(Directory.EnumerateFiles(prepared.Store.DatasetFolder(name)).Sum(f => new FileInfo(f).Length), d.GetProperty("bytes").GetInt64());
        }
        Assert.Contains("prepare the data set again", datasets[Path.GetFileName(damaged)].GetProperty("problem").GetString(), StringComparison.Ordinal);
        Assert.Equal(KnownDatasets.All.Select(k => (k.Name, k.Licence, k.Size, k.Subsets.Count)),
            json.GetProperty("known").EnumerateArray().Select(k => (k.GetProperty("name").GetString()!, k.GetProperty("licence").GetString()!, k.GetProperty("size").GetString()!, k.GetProperty("subsets").GetArrayLength())));
        (code, output, _) = await RunAsync(["list", .. Root]);
        Assert.Equal(0, code);
        Assert.Matches(@"stories +text +\d+ +[\d,]+ +400 +stories +[\d.]+ kB", output);
        Assert.All(KnownDatasets.All, k => Assert.Contains(k.Name, output, StringComparison.Ordinal));
        Directory.Delete(damaged, recursive: true);
    }

    [Fact]
    public async Task A_token_file_is_described_by_its_data_sets_name_its_folder_or_its_path()
    {
        string folder = prepared.Store.DatasetFolder(PreparedStore.Stories), path = prepared.Store.DatasetTokens(PreparedStore.Stories);
        using TokenFile file = TokenFile.Open(path);
        TokenStatistics statistics = TokenStatistics.Of(file);
        foreach (string words in new[] { PreparedStore.Stories, folder, path })
        {
            JsonElement json = await InspectAsync(words);
            Assert.Equal((path, "tokens", 1, 2, 400, file.TokenizerHash, file.DocumentCount, file.Count, file.TextBytes, "after", true),
                (json.GetProperty("path").GetString(), json.GetProperty("format").GetString(), json.GetProperty("version").GetInt32(), json.GetProperty("id_bytes").GetInt32(), json.GetProperty("vocabulary_size").GetInt32(), json.GetProperty("tokenizer_hash").GetString(),
                json.GetProperty("documents").GetInt64(), json.GetProperty("tokens").GetInt64(), json.GetProperty("text_bytes").GetInt64(), json.GetProperty("end_of_text").GetString(), json.GetProperty("verified").GetBoolean()));
            JsonElement lengths = json.GetProperty("lengths");
            Assert.Equal((statistics.Shortest, statistics.Median, statistics.MeanLength, statistics.Percentile95, statistics.Longest),
                (lengths.GetProperty("min").GetInt32(), lengths.GetProperty("median").GetInt32(), lengths.GetProperty("mean").GetDouble(), lengths.GetProperty("p95").GetInt32(), lengths.GetProperty("max").GetInt32()));
            Assert.Equal(file.DocumentCount, lengths.GetProperty("histogram").EnumerateArray().Sum(l => l.GetProperty("documents").GetInt64()));
            Assert.Equal(statistics.DuplicateShare, json.GetProperty("duplicate_share").GetDouble());
            Assert.Equal(Path.Combine(folder, Tokenizer.FileName), json.GetProperty("tokenizer").GetString());
            Assert.Equal("a-run", json.GetProperty("dataset").GetProperty("run_id").GetString());
        }
        (int code, string output, _) = await RunAsync(["inspect", PreparedStore.Stories, "--tokenizer", folder, .. Root]);
        Assert.Equal(0, code);
        foreach (string says in new[] { "vocabulary_size       400", "verified              true", $"longest {statistics.Longest}", "█" }) Assert.Contains(says, output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Conversations_are_found_by_their_file_of_messages()
    {
        foreach (string words in new[] { PreparedStore.Talks, Path.ChangeExtension(prepared.Store.DatasetTokens(PreparedStore.Talks), ".messages") })
        {
            JsonElement json = await InspectAsync(words);
            Assert.Equal(("conversations", 90, 270, true), (json.GetProperty("format").GetString(), json.GetProperty("documents").GetInt32(), json.GetProperty("messages").GetInt32(), json.GetProperty("verified").GetBoolean()));
            Assert.Equal("chat", json.GetProperty("dataset").GetProperty("kind").GetString());
        }
    }

    [Fact]
    public async Task A_raw_file_is_read_when_it_is_said_to_be_one()
    {
        string raw = prepared[$"{Guid.NewGuid():n}/train.bin"];
        Directory.CreateDirectory(Path.GetDirectoryName(raw)!);
        await File.WriteAllBytesAsync(raw, [5, 0, 250, 1, 7, 0]);
        (int code, string output, string errors) = await RunAsync("inspect", raw);
        Assert.Equal((2, ""), (code, output));
        Assert.Contains($"FILE = {raw}: it is not a token file", errors, StringComparison.Ordinal);
        Assert.Contains("--raw_tokens reads uint16 ids", errors, StringComparison.Ordinal);
        foreach (string flag in new[] { "--raw", "--raw-tokens" })
        {
            JsonElement json = await InspectAsync(raw, flag);
            Assert.Equal(("raw", 3, 506, false), (json.GetProperty("format").GetString(), json.GetProperty("tokens").GetInt32(), json.GetProperty("largest_id").GetInt32(), json.GetProperty("verified").GetBoolean()));
            Assert.Equal(JsonValueKind.Null, json.GetProperty("vocabulary_size").ValueKind);
        }
        (code, _, errors) = await RunAsync("inspect", raw, "--raw", "--tokenizer", prepared.Store.DatasetFolder(PreparedStore.Stories));
        Assert.Equal(2, code);
        Assert.Contains("token 1 (document 0) is the id 506, which is not in its vocabulary of 400 tokens; give the vocabulary of the tokenizer that made it", errors, StringComparison.Ordinal);
        await File.WriteAllBytesAsync(raw, [5, 0, 250]);
        (code, _, errors) = await RunAsync("inspect", raw, "--raw");
        Assert.Equal(2, code);
        Assert.Contains("it has 3 bytes, an odd number", errors, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("tokens.bin", 200, "its content does not match its checksum; prepare it again")]
    [InlineData("tokens.bin", 8, "it has format version")]
    [InlineData("tokens.bin", 0, "it is not a token file")]
    [InlineData("tokens.bin", -100, "bytes instead of")]
    [InlineData("tokens.messages", 70, "its content does not match its checksum; prepare the conversations again")]
    [InlineData("tokens.messages", 40, "it belongs to other tokens than those in")]
    public async Task A_damaged_file_is_named_with_its_cure(string name, int at, string says)
    {
        string copy = prepared.Copy(PreparedStore.Talks), file = Path.Combine(copy, name);
        byte[] bytes = await File.ReadAllBytesAsync(file);
        if (at >= 0) bytes[at] ^= 0x40;
        await File.WriteAllBytesAsync(file, at >= 0 ? bytes : bytes[..^-at]);
        (int code, string output, string errors) = await RunAsync(["inspect", file.EndsWith(".bin", StringComparison.Ordinal) ? file : copy, .. Root]);
        Assert.Equal((2, ""), (code, output));
        Assert.Contains(says, errors, StringComparison.Ordinal);
        Assert.Contains(file, errors, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", errors, StringComparison.Ordinal);
        Directory.Delete(copy, recursive: true);
    }

    [Fact]
    public async Task A_checksum_is_not_compared_when_it_shall_not_be()
    {
        string copy = prepared.Copy(PreparedStore.Stories), file = Path.Combine(copy, "tokens.bin");
        byte[] bytes = await File.ReadAllBytesAsync(file);
        bytes[120] ^= 1;
        await File.WriteAllBytesAsync(file, bytes);
        Assert.Equal(2, (await RunAsync("inspect", file)).Code);
        Assert.False((await InspectAsync(file, "--no-verify")).GetProperty("verified").GetBoolean());
        Directory.Delete(copy, recursive: true);
    }

    [Fact]
    public async Task Another_tokenizer_than_the_one_that_made_the_tokens_is_named()
    {
        string talks = prepared.Store.DatasetFolder(PreparedStore.Talks);
        (int code, _, string errors) = await RunAsync(["inspect", PreparedStore.Stories, "--tokenizer", talks, .. Root]);
        Assert.Equal(2, code);
        Assert.Contains($"was made with another tokenizer", errors, StringComparison.Ordinal);
        Assert.Contains(talks, errors, StringComparison.Ordinal);
        // One that only lies beside it is said to be wrong, and what needs none is shown.
        string copy = prepared.Copy(PreparedStore.Stories);
        File.Copy(Path.Combine(talks, "tokenizer.json"), Path.Combine(copy, "tokenizer.json"), overwrite: true);
        (code, string output, errors) = await RunAsync(["inspect", copy, "--json", .. Root]);
        Assert.Equal(0, code);
        Assert.Contains("was made with another tokenizer", errors, StringComparison.Ordinal);
        Assert.Equal(JsonValueKind.Null, JsonDocument.Parse(output).RootElement.GetProperty("tokenizer").ValueKind);
        (code, _, errors) = await RunAsync(["preview", copy, .. Root]);
        Assert.Equal(2, code);
        Assert.Contains("was made with another tokenizer", errors, StringComparison.Ordinal);
        Directory.Delete(copy, recursive: true);
    }

    [Theory]
    [InlineData("FILE = storis: there is no such file, folder or data set of the store (did you mean stories?)", "storis")]
    [InlineData("FILE = /: the folder has no tokens.bin", "/")]
    [InlineData("FILE = (empty): there is no such file", "")]
    [InlineData("there is no option --no_verfy: did you mean --no_verify?", "stories", "--no_verfy")]
    [InlineData("--tokenizer = storis: there is no such tokenizer", "stories", "--tokenizer", "storis")]
    public async Task What_is_not_there_is_named(string says, params string[] arguments)
    {
        (int code, string output, string errors) = await RunAsync(["inspect", .. arguments, .. Root]);
        Assert.Equal((2, ""), (code, output));
        Assert.Contains(says, errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_file_of_messages_without_its_tokens_is_named()
    {
        string alone = prepared[$"{Guid.NewGuid():n}/tokens.messages"];
        Directory.CreateDirectory(Path.GetDirectoryName(alone)!);
        File.Copy(Path.Combine(prepared.Store.DatasetFolder(PreparedStore.Talks), "tokens.messages"), alone);
        (int code, _, string errors) = await RunAsync("inspect", alone);
        Assert.Equal(2, code);
        Assert.Contains($"{Path.ChangeExtension(alone, ".bin")}, is not beside it", errors, StringComparison.Ordinal);
    }
}
