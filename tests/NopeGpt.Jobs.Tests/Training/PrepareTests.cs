using NopeGpt.Data;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Training;

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

    private Task<int> RunAsync(RunFolder run, Action<TrainingEvent>? watch = null) => TrainerProcessMain.RunAsync(run.Path, store, false, null, default, watch);
}
