using System.Diagnostics;
using System.Text;
using System.Text.Json;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Tests;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Datasets;
using NopeGpt.Jobs.Tests.Queue;
using Parquet;

namespace NopeGpt.Tests.Datasets;

/// <summary>Prepare runs over data sets of a Hub on this machine, most of them by a trainer process of their own.</summary>
public sealed class PrepareHubTests : IDisposable
{
    private const string Name = "someone/stories";
    private readonly PrepareFixture _fixture = new();
    private readonly HubServer _server = new();

    public void Dispose()
    {
        _server.Dispose();
        _fixture.Dispose();
    }

    [Fact]
    public async Task A_download_tells_how_far_and_how_fast_it_is()
    {
        string[] texts = Texts(300);
        byte[] file = await ParquetAsync(texts);
        _server.Publish(Name, new Dictionary<string, byte[]> { ["data/train-00000-of-00001.parquet"] = file }, new { license = "mit" });
        _server.FileFaults.Enqueue(new(Pace: file.Length / 30));
        RunFolder run = _fixture.NewRun(Recipe("hub:" + Name));
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        PrepareFixture.AssertProgress(run);
        ProgressEvent[] downloads = [.. run.Events().OfType<ProgressEvent>().Where(p => p.Stage.StartsWith("downloading: ", StringComparison.Ordinal))];
        Assert.True(downloads.Length >= 2);
        Assert.EndsWith(FormattableString.Invariant($" of {file.Length / 1e6:0.0} MB"), downloads[^1].Stage, StringComparison.Ordinal);
        // About a second for all of it, whatever the machine is busy with.
        Assert.InRange(downloads[^1].BytesPerSecond!.Value, file.Length / 20.0, file.Length * 3.0);
        Assert.InRange(downloads[^1].EtaSeconds!.Value, 0, 20);
        DatasetInfo info = _fixture.Info("words");
        Assert.Equal(("mit", 300), (info.Licence, info.Documents));
        Assert.Equal(texts, _fixture.Texts("words"));
    }

    [Fact]
    public async Task Killed_in_the_midst_of_a_download_it_asks_for_the_rest_only_and_keeps_to_the_first_commit()
    {
        string[] texts = Texts(8000);
        byte[] file = await ParquetAsync(texts);
        string commit = _server.Publish(Name, new Dictionary<string, byte[]> { ["data/train-00000-of-00002.parquet"] = await ParquetAsync(["first"]), ["data/train-00001-of-00002.parquet"] = file });
        // The first file is needed to see the columns; the attempt is pinned when that is there.
        _server.FileFaults.Enqueue(new());
        _server.FileFaults.Enqueue(new(Stall: true));
        RunFolder run = _fixture.NewRun(Recipe(Name));
        using (Process process = Start(run))
        {
            await WaitFor.TrueAsync(() => Parts().Sum(p => p.Length) > file.Length / 3 || process.HasExited, "a part of the file");
            process.Kill();
            await process.WaitForExitAsync();
        }
        Assert.False(Directory.Exists(_fixture.Store.DatasetFolder("words")));
        long here = Assert.Single(Parts()).Length;
        // The revision moves on.
        _server.Publish(Name, new Dictionary<string, byte[]> { ["data/train-00000-of-00001.parquet"] = await ParquetAsync(["another"]) });
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        Assert.Equal($"bytes={here}-", _server.Requests.Last(r => r.Path.Contains("/blob/", StringComparison.Ordinal)).Range);
        Assert.Equal($"hub:{Name}@{commit}", _fixture.Info("words").Origin);
        Assert.Equal([.. (string[])["first"], .. texts], _fixture.Texts("words"));
        PrepareFixture.AssertProgress(run);
    }

    [Fact]
    public async Task A_server_that_fails_for_a_while_is_asked_again()
    {
        string[] texts = Texts(200);
        byte[] file = await ParquetAsync(texts);
        _server.Publish(Name, new Dictionary<string, byte[]> { ["data/train-00000-of-00001.parquet"] = file });
        _server.HubFaults.Enqueue(new(429, RetryAfter: 0));
        _server.HubFaults.Enqueue(new(503, RetryAfter: 0));
        _server.FileFaults.Enqueue(new(500, RetryAfter: 0));
        _server.FileFaults.Enqueue(new(TruncateAfter: file.Length / 2));
        Assert.Equal(ExitCode.Done, await RunAsync(_fixture.NewRun(Recipe(Name))));
        Assert.Equal(texts, _fixture.Texts("words"));
    }

    [Fact]
    public async Task A_file_that_comes_damaged_is_got_anew()
    {
        string[] texts = Texts(20);
        _server.Publish(Name, new Dictionary<string, byte[]> { ["data/train-00000-of-00001.parquet"] = await ParquetAsync(texts) });
        _server.FileFaults.Enqueue(new(Corrupt: true));
        Assert.Equal(ExitCode.Done, await RunAsync(_fixture.NewRun(Recipe(Name))));
        Assert.Equal(texts, _fixture.Texts("words"));
    }

    [Fact]
    public async Task What_is_encoded_stays_when_the_hub_fails_for_good_later()
    {
        string[] texts = Texts(40);
        byte[][] files = [.. await Task.WhenAll(texts.Chunk(10).Select(ParquetAsync))];
        _server.Publish(Name, Numbered(files));
        RunFolder run = _fixture.NewRun(Recipe(Name));
        _server.Forbidden = files[3];
        Assert.Equal(ExitCode.BadConfiguration, await RunAsync(run));
        Assert.Contains("403", run.Events().OfType<EndedEvent>().Single().Reason, StringComparison.Ordinal);
        _server.Forbidden = null;
        int before = Downloads();
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        Assert.Equal(texts, _fixture.Texts("words"));
        Assert.Equal(1, Downloads() - before);
    }

    [Theory]
    [InlineData("gated")]
    [InlineData("unknown")]
    public async Task What_may_not_be_read_or_is_not_there_is_one_sentence_with_a_cure(string trouble)
    {
        _server.Publish(Name, new Dictionary<string, byte[]> { ["data/train-00000-of-00001.parquet"] = await ParquetAsync(["a"]) });
        if (trouble == "gated") _server.RequiredToken = "hf_x";
        RunFolder run = _fixture.NewRun(Recipe(trouble == "gated" ? Name : "someone/else"));
        Assert.Equal(ExitCode.BadConfiguration, await RunAsync(run));
        string reason = run.Events().OfType<EndedEvent>().Single().Reason!;
        Assert.Contains("HF_TOKEN", reason, StringComparison.Ordinal);
        Assert.Contains(trouble == "gated" ? "gated" : "there is no such data set", reason, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', reason);
        Assert.Empty(Directory.EnumerateFileSystemEntries(_fixture.Store.DatasetsFolder));
        if (trouble == "unknown") return;
        Assert.Equal(ExitCode.Done, await RunAsync(run, ("HF_TOKEN", "hf_x")));
    }

    [Fact]
    public async Task What_is_here_already_needs_no_network()
    {
        string[] texts = Texts(30);
        _server.Publish(Name, Numbered([.. await Task.WhenAll(texts.Chunk(15).Select(ParquetAsync))]));
        RunFolder first = _fixture.NewRun(Recipe(Name));
        Assert.Equal(ExitCode.Done, await RunAsync(first));
        int asked = _server.Requests.Count;
        // The data set that is there is what the recipe makes: nobody is asked.
        RunFolder same = _fixture.NewRun(Recipe("hub:" + Name));
        Assert.Equal(ExitCode.Done, await RunAsync(same, ("NOPEGPT_Hub__Endpoint", "http://127.0.0.1:9")));
        Assert.Equal("the data set was there already", same.Events().OfType<ProgressEvent>().Last().Stage);
        // Another data set of it: the last commit that is known counts, and that is told.
        RunFolder other = _fixture.NewRun(Recipe(Name) with { Dataset = "other", EndOfText = Data.EndOfText.Before });
        Assert.Equal(ExitCode.Done, await RunAsync(other, ("NOPEGPT_Hub__Endpoint", "http://127.0.0.1:9")));
        Assert.Contains(other.Events().OfType<WarningEvent>(), w => w.Message.Contains("cannot be reached", StringComparison.Ordinal) && w.Message.Contains("main is taken as it was", StringComparison.Ordinal));
        Assert.Equal(texts, _fixture.Texts("other"));
        Assert.Equal(_fixture.Info("words").Origin, _fixture.Info("other").Origin);
        Assert.Equal(asked, _server.Requests.Count);
    }

    [Fact]
    public async Task Of_two_runs_at_once_one_is_used_and_every_file_is_got_once()
    {
        string[] texts = Texts(400);
        byte[][] files = [.. await Task.WhenAll(texts.Chunk(100).Select(ParquetAsync))];
        _server.Publish(Name, Numbered(files));
        RunFolder[] runs = [_fixture.NewRun(Recipe(Name)), _fixture.NewRun(Recipe(Name))];
        Assert.All(await Task.WhenAll(runs.Select(run => RunAsync(run))), code => Assert.Equal(ExitCode.Done, code));
        Assert.Equal(files.Length, Downloads());
        Assert.Equal(texts, _fixture.Texts("words"));
        Assert.Equal([_fixture.Store.DatasetFolder("words")], Directory.EnumerateFileSystemEntries(_fixture.Store.DatasetsFolder));
    }

    [Fact]
    public async Task With_a_bound_on_tokens_only_the_files_that_are_needed_come_and_a_few_ahead()
    {
        string[] texts = Texts(200);
        byte[][] files = [.. await Task.WhenAll(texts.Chunk(10).Select(ParquetAsync))];
        Dictionary<string, byte[]> sample = files.Select((f, i) => ($"sample/10BT/{i:D3}_00000.parquet", f)).ToDictionary(f => f.Item1, f => f.f);
        _server.Publish("HuggingFaceFW/fineweb", sample, new
        {
            license = "odc-by", configs = new object[] { new { config_name = "default", data_files = new[] { new { split = "train", path = "data/*/*" } } }, new { config_name = "sample-10BT", data_files = new[] { new { split = "train", path = "sample/10BT/*" } } } },
        });
        RunFolder run = _fixture.NewRun(Recipe("huggingfacefw/FineWeb:sample-10BT") with { MaxTokens = 2500 });
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        PrepareFixture.AssertProgress(run);
        DatasetInfo info = _fixture.Info("words");
        Assert.True(info.Tokens >= 2500 && info.Documents < 60, $"{info.Tokens} tokens of {info.Documents} documents");
        Assert.Equal(texts[..(int)info.Documents], _fixture.Texts("words"));
        Assert.StartsWith("hub:HuggingFaceFW/fineweb:sample-10BT@", info.Origin, StringComparison.Ordinal);
        int needed = (int)Math.Ceiling(info.Documents / 10.0);
        Assert.InRange(Downloads(), needed, needed + new SourceOptions().FilesAhead);
    }

    [Fact]
    public async Task A_subset_of_smoltalk_becomes_conversations()
    {
        ChatRow[] rows = [new() { source = "s", messages = [new() { role = "user", content = "hi" }, new() { role = "assistant", content = "hello" }] }];
        byte[] data = await File.ReadAllBytesAsync(await SourceFiles.RowsAsync(_fixture["rows.parquet"], rows));
        string[] subsets = ["all", "everyday-conversations"];
        _server.Publish("HuggingFaceTB/smoltalk", subsets.ToDictionary(s => $"data/{s}/train-00000-of-00001.parquet", s => s == "all" ? [1, 2, 3] : data), new
        {
            license = "apache-2.0", configs = subsets.Select(s => new { config_name = s, data_files = new[] { new { split = "train", path = $"data/{s}/train-*" } } }),
        });
        RunFolder run = _fixture.NewRun(Recipe("hub:HuggingFaceTB/smoltalk:everyday-conversations"));
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        DatasetInfo info = _fixture.Info("words");
        Assert.Equal((DatasetKind.Chat, "messages=messages", "apache-2.0", 1), (info.Kind, info.Columns, info.Licence, info.Documents));
        using ChatFile chat = _fixture.Chat("words");
        Assert.Equal(2, chat[0].Messages.Length);
    }

    [Fact]
    public async Task Ultrafeedback_becomes_pairs_and_by_its_other_split_conversations()
    {
        PairRow[] rows = [new() { prompt = "Which?", chosen = Turns("Which?", "This."), rejected = Turns("Which?", "That."), messages = Turns("Which?", "This.") }];
        byte[] data = await File.ReadAllBytesAsync(await SourceFiles.RowsAsync(_fixture["rows.parquet"], rows));
        string[] splits = ["train_prefs", "train_sft", "test_prefs"];
        _server.Publish("HuggingFaceH4/ultrafeedback_binarized", splits.ToDictionary(s => $"data/{s}-00000-of-00001.parquet", _ => data), new
        {
            license = "mit", configs = new[] { new { config_name = "default", data_files = splits.Select(s => new { split = s, path = $"data/{s}-*" }) } },
        });
        Assert.Equal(ExitCode.Done, await RunAsync(_fixture.NewRun(Recipe("HuggingFaceH4/ultrafeedback_binarized") with { Kind = PrepareKind.Preference })));
        Assert.Equal((DatasetKind.Preference, 2), (_fixture.Info("words").Kind, _fixture.Info("words").Documents));
        Assert.Equal(ExitCode.Done, await RunAsync(_fixture.NewRun(Recipe("HuggingFaceH4/ultrafeedback_binarized:default:train_sft") with { Kind = PrepareKind.Chat, Dataset = "talks" })));
        Assert.Equal((DatasetKind.Chat, 1, "messages=messages"), (_fixture.Info("talks").Kind, _fixture.Info("talks").Documents, _fixture.Info("talks").Columns));
    }

    [Fact]
    public async Task Hh_rlhf_becomes_pairs_from_its_packed_lines()
    {
        byte[] Pairs(string text) => SourceFiles.Gzip(Encoding.UTF8.GetBytes(JsonSerializer.Serialize(new { chosen = $"\n\nHuman: {text}\n\nAssistant: yes", rejected = $"\n\nHuman: {text}\n\nAssistant: no" }) + "\n"));
        _server.Publish("Anthropic/hh-rlhf", new Dictionary<string, byte[]> { ["harmless-base/train.jsonl.gz"] = Pairs("one"), ["helpful-base/train.jsonl.gz"] = Pairs("two"), ["helpful-base/test.jsonl.gz"] = Pairs("three") }, new { license = "mit" });
        Assert.Equal(ExitCode.Done, await RunAsync(_fixture.NewRun(Recipe("anthropic/HH-RLHF"))));
        DatasetInfo info = _fixture.Info("words");
        Assert.Equal((DatasetKind.Preference, 4, 2), (info.Kind, info.Documents, info.Chat!.Kept));
    }

    [Fact]
    public async Task A_data_set_of_which_only_the_hubs_own_parquet_can_be_read_is_gone_on_with()
    {
        string[] texts = Texts(4);
        _server.Publish(Name, new Dictionary<string, byte[]> { ["stories.py"] = [1] }, new { license = "mit" });
        Dictionary<string, byte[]> files = new() { ["default/partial-train/0000.parquet"] = await ParquetAsync(texts[..2]), ["default/partial-train/0001.parquet"] = await ParquetAsync(texts[2..]), ["other/train/0000.parquet"] = await ParquetAsync(["other"]) };
        string commit = _server.Publish(Name, files, revision: "refs/convert/parquet");
        _server.Forbidden = files["default/partial-train/0001.parquet"];
        RunFolder run = _fixture.NewRun(Recipe(Name));
        Assert.Equal(ExitCode.BadConfiguration, await RunAsync(run));
        _server.Forbidden = null;
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        Assert.Equal(texts, _fixture.Texts("words"));
        Assert.Equal(($"hub:{Name}@{commit}", "mit"), (_fixture.Info("words").Origin, _fixture.Info("words").Licence));
    }

    private PrepareConfig Recipe(string source) => new() { Source = source, Tokenizer = _fixture.Tokenizer(), Dataset = "words" };

    private static string[] Texts(int count) => [.. Enumerable.Range(0, count).Select(i => $"Text {i} with the number {i * 7919 % 1000} and {Guid.NewGuid():n}{Guid.NewGuid():n}")];

    private static Dictionary<string, byte[]> Numbered(byte[][] files) => files.Select((f, i) => ($"data/train-{i:D5}-of-{files.Length:D5}.parquet", f)).ToDictionary(f => f.Item1, f => f.f);

    private async Task<byte[]> ParquetAsync(string[] texts) => await File.ReadAllBytesAsync(await SourceFiles.TextsAsync(_fixture[$"{Guid.NewGuid():n}.parquet"], texts, 1000, CompressionMethod.None));

    private int Downloads() => _server.Requests.Count(r => r.Path.Contains("/blob/", StringComparison.Ordinal));

    private FileInfo[] Parts() => Directory.Exists(_fixture.Store.CacheFolder) ? [.. new DirectoryInfo(_fixture.Store.CacheFolder).EnumerateFiles("*.part", SearchOption.AllDirectories)] : [];

    private static List<ChatTurn> Turns(string question, string answer) => [new() { role = "user", content = question }, new() { role = "assistant", content = answer }];

    private async Task<int> RunAsync(RunFolder run, params (string Name, string Value)[] environment)
    {
        using Process process = Start(run, environment);
        using CancellationTokenSource limit = new(TimeSpan.FromSeconds(60));
        await process.WaitForExitAsync(limit.Token);
        return process.ExitCode;
    }

    /// <summary>A trainer process that knows this Hub.</summary>
    private Process Start(RunFolder run, params (string Name, string Value)[] environment)
    {
        ProcessStartInfo start = new(Path.Combine(AppContext.BaseDirectory, "nopegpt"), ["train", run.Path, "--root", _fixture.Store.Root, "--detached"]);
        start.Environment["NOPEGPT_Hub__Endpoint"] = _server.Endpoint.AbsoluteUri;
        start.Environment.Remove("HF_TOKEN");
        foreach ((string name, string value) in environment) start.Environment[name] = value;
        return Process.Start(start)!;
    }

    private sealed class PairRow
    {
        public string? prompt { get; set; }
        public List<ChatTurn>? chosen { get; set; }
        public List<ChatTurn>? rejected { get; set; }
        public List<ChatTurn>? messages { get; set; }
    }
}
