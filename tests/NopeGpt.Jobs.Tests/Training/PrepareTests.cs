using System.Diagnostics;
using System.Text.Json;
using NopeGpt.Data;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Datasets;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Jobs.Tokenizers;
using NopeGpt.Jobs.Training;
using NopeGpt.Jobs.Tests.Queue;

namespace NopeGpt.Tests.Training;

public sealed class PrepareTests : IDisposable
{
    private readonly TemporaryFolder temporary = new();
    private readonly Store store;
    private readonly PrepareConfig recipe = new() { CorpusBytes = 20_000, VocabularySize = 300, Dataset = "words" };

    public PrepareTests() => store = new Store(temporary["root"]);

    private string TokenizerCopy => Path.Combine(store.TokenizerFolder("words"), "tokenizer.json");

    public void Dispose() => temporary.Dispose();

    [Theory]
    [InlineData(300, ExitCode.Done)]
    [InlineData(310, ExitCode.BadConfiguration)]
    public async Task Of_two_runs_that_make_one_data_set_the_first_counts(int vocabularySize, int code)
    {
        bool met = false;
        RunFolder slow = NewRun(recipe with { VocabularySize = vocabularySize });
        int ended = await RunAsync(slow, e =>
        {
            if (met || e is not ProgressEvent { Stage: "encoding" }) return;
            met = true;
            Assert.Equal(ExitCode.Done, Task.Run(() => RunAsync(NewRun(recipe))).GetAwaiter().GetResult());
        });
        Assert.True(met);
        Assert.Equal(code, ended);
        AssertWhole();
    }

    [Fact]
    public async Task A_missing_copy_of_the_tokenizer_is_made_again()
    {
        Assert.Equal(ExitCode.Done, await RunAsync(NewRun(recipe)));
        Directory.Delete(store.TokenizerFolder("words"), recursive: true);
        Assert.Equal(ExitCode.Done, await RunAsync(NewRun(recipe)));
        AssertWhole();
    }

    [Fact]
    public async Task A_tokenizer_that_was_imported_under_the_data_sets_name_is_not_written_over()
    {
        Tokenizer own = BytePairTrainer.Train([], 257);
        own.Save(temporary["own"]);
        TokenizerLibrary library = new(store);
        library.Import(temporary["own"], "words", DateTimeOffset.UnixEpoch);
        Assert.Equal(ExitCode.Done, await RunAsync(NewRun(recipe)));
        Assert.Equal(own.Hash, library.Load("words").Hash);
        Assert.Equal(300, Tokenizer.Load(store.DatasetFolder("words")).VocabularySize);
    }

    [Theory]
    [InlineData("tokens.bin")]
    [InlineData("tokenizer.json")]
    public async Task A_damaged_data_set_is_made_anew_with_a_warning(string name)
    {
        Assert.Equal(ExitCode.Done, await RunAsync(NewRun(recipe)));
        string file = Path.Combine(store.DatasetFolder("words"), name);
        byte[] whole = await File.ReadAllBytesAsync(file), damaged = [.. whole];
        damaged[damaged.Length / 2] ^= 0x55;
        await File.WriteAllBytesAsync(file, damaged);
        RunFolder again = NewRun(recipe);
        Assert.Equal(ExitCode.Done, await RunAsync(again));
        Assert.Contains(again.Events().OfType<WarningEvent>(), w => w.Message.Contains(name, StringComparison.Ordinal));
        Assert.Equal(whole, await File.ReadAllBytesAsync(file));
        AssertWhole();
    }

    [Fact]
    public async Task A_source_file_that_has_changed_is_noticed()
    {
        string source = temporary["text.txt"];
        await File.WriteAllTextAsync(source, string.Concat(Enumerable.Range(0, 400).Select(i => $"The {i}th line of a text.\n\n")));
        PrepareConfig own = recipe with { Source = source, VocabularySize = 270 };
        Assert.Equal(ExitCode.Done, await RunAsync(NewRun(own)));
        Assert.Equal(ExitCode.Done, await RunAsync(NewRun(own)));
        await File.AppendAllTextAsync(source, "One more.\n");
        RunFolder changed = NewRun(own);
        Assert.Equal(ExitCode.BadConfiguration, await RunAsync(changed));
        Assert.Contains($"prepare.source = {source}: the file has changed", changed.Events().OfType<EndedEvent>().Single().Reason, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Killed_again_and_again_it_goes_on_where_it_was_and_makes_the_same_bytes()
    {
        PrepareConfig own = Large();
        Assert.Equal(ExitCode.Done, await RunAsync(NewRun(own with { Dataset = "straight", Workers = 3 })));
        RunFolder run = NewRun(own);
        string journal = Path.Combine(store.DatasetsFolder, $".words.{run.Id}.new", "tokens.bin.parts", "journal");
        int finished = 0;
        for (int kill = 0; kill < 2; kill++)
        {
            using Process process = Process.Start(new ProcessStartInfo(Path.Combine(AppContext.BaseDirectory, "nopegpt"), ["train", run.Path, "--root", store.Root, "--detached"]))!;
            await WaitFor.TrueAsync(() => Lines(journal) > finished + 1 || process.HasExited, "a finished shard");
            process.Kill();
            await process.WaitForExitAsync();
            Assert.False(Directory.Exists(store.DatasetFolder("words")));
            finished = Lines(journal);
        }
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        Assert.Equal(await File.ReadAllBytesAsync(store.DatasetTokens("straight")), await File.ReadAllBytesAsync(store.DatasetTokens("words")));
        Assert.False(Directory.Exists(Path.GetDirectoryName(Path.GetDirectoryName(journal))));
        DatasetInfo straight = Info("straight"), words = Info("words");
        Assert.Equal((straight.Documents, straight.TextBytes, straight.Tokens), (words.Documents, words.TextBytes, words.Tokens));
    }

    [Fact]
    public async Task A_stopped_run_goes_on_from_its_last_finished_shard()
    {
        RunFolder run = NewRun(Large() with { Workers = 1 });
        using CancellationTokenSource stop = new();
        Assert.Equal(ExitCode.StoppedAndSaved, await RunAsync(run, e =>
        {
            if (e is ProgressEvent { Stage: "encoding", BytesPerSecond: > 0, EtaSeconds: >= 0 }) stop.Cancel();
        }, stop.Token));
        Assert.Contains("last finished shard", run.Events().OfType<EndedEvent>().Single().Reason, StringComparison.Ordinal);
        Assert.True(Lines(Path.Combine(store.DatasetsFolder, $".words.{run.Id}.new", "tokens.bin.parts", "journal")) > 1);
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        Assert.Equal([store.DatasetFolder("words")], Directory.EnumerateFileSystemEntries(store.DatasetsFolder));
    }

    [Fact]
    public async Task What_is_wrong_in_a_source_is_counted_and_told_and_the_good_is_kept()
    {
        await File.WriteAllLinesAsync(temporary["text.jsonl"], [.. Enumerable.Range(0, 200).Select(i => $$"""{"body": "The {{i}}th line of a text."}"""), "no json", """{"body": 5}""", """{"body": ""}"""]);
        PrepareConfig own = recipe with { Source = temporary["text.jsonl"], TextColumn = "body", VocabularySize = 270, EndOfText = EndOfText.Before };
        RunFolder run = NewRun(own);
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        string warning = Assert.Single(run.Events().OfType<WarningEvent>()).Message;
        Assert.Contains("200 records, 2 bad, 1 empty", warning, StringComparison.Ordinal);
        Assert.Contains("row 201", warning, StringComparison.Ordinal);
        DatasetInfo info = Info("words");
        Assert.Equal((200, 2, 1), (info.Documents, info.Reading!.Bad, info.Reading.Empty));
        // The number of workers makes no other data set, end-of-text at another place does.
        Assert.Equal(ExitCode.Done, await RunAsync(NewRun(own with { Workers = 2 })));
        Assert.Equal(ExitCode.BadConfiguration, await RunAsync(NewRun(own with { EndOfText = EndOfText.After })));
    }

    /// <summary>A source of many shards and a tokenizer that is there already.</summary>
    private PrepareConfig Large()
    {
        string line = $$"""{"text": "{{string.Concat(Enumerable.Range(0, 400).Select(i => $"The {i}th word of it. "))}}"}""";
        File.WriteAllLines(temporary["large.jsonl"], Enumerable.Repeat(line, 5000));
        BytePairTrainer.Train(["the word of it"], 260).Save(temporary["tokenizer"]);
        return recipe with { Source = temporary["large.jsonl"], Tokenizer = temporary["tokenizer"] };
    }

    private static int Lines(string path) => File.Exists(path) ? File.ReadLines(path).Count() : 0;

    private DatasetInfo Info(string name) => JsonSerializer.Deserialize<DatasetInfo>(File.ReadAllText(Path.Combine(store.DatasetFolder(name), "dataset.json")), Settings.Json)!;

    private void AssertWhole()
    {
        using TokenFile tokens = TokenFile.Open(store.DatasetTokens("words"));
        tokens.Verify();
        Assert.Equal(300, tokens.VocabularySize);
        Assert.Equal(tokens.TokenizerHash, Tokenizer.Load(store.DatasetFolder("words")).Hash);
        Assert.Equal(tokens.TokenizerHash, Tokenizer.Load(TokenizerCopy).Hash);
        Assert.Equal([store.DatasetFolder("words")], Directory.EnumerateFileSystemEntries(store.DatasetsFolder));
        Assert.Equal([TokenizerCopy], Directory.EnumerateFileSystemEntries(store.TokenizerFolder("words")));
    }

    private RunFolder NewRun(PrepareConfig prepare) => RunFolder.Create(store, new RunRecord(
        RunRecord.CurrentFormat, RunFolder.NewId(DateTimeOffset.UtcNow), DateTimeOffset.UtcNow, [], new RunConfig { Kind = RunKind.Prepare, Prepare = prepare }));

    private Task<int> RunAsync(RunFolder run, Action<TrainingEvent>? watch = null, CancellationToken cancel = default) => TrainerProcessMain.RunAsync(run.Path, store, false, null, cancel, watch);
}
