using NopeGpt.Data;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Datasets;
using NopeGpt.Jobs.Training;

namespace NopeGpt.Tests.Datasets;

/// <summary>A store of a test's own, and prepare runs in it.</summary>
internal sealed class PrepareFixture : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public PrepareFixture() => Store = new Store(_folder["root"]);

    public Store Store { get; }

    /// <summary>A path of the test's own.</summary>
    public string this[string relative] => _folder[relative];

    public void Dispose() => _folder.Dispose();

    /// <summary>Puts the published file of r50k_base where the store looks for it.</summary>
    public void GiveR50k() => File.Copy(Needs.Data("tokenizers/r50k_base.tiktoken"), Path.Combine(Store.CacheFolder, "r50k_base.tiktoken"));

    /// <summary>A small tokenizer in a folder, quick to make.</summary>
    public string Tokenizer(string name = "tokenizer")
    {
        if (!Directory.Exists(this[name])) BytePairTrainer.Train(["the cat sat on the mat; the dog sat on the cat"], 280).Save(this[name]);
        return this[name];
    }

    public string Write(string name, params IEnumerable<string> lines)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(this[name])!);
        File.WriteAllLines(this[name], lines);
        return this[name];
    }

    public RunFolder NewRun(PrepareConfig recipe) => RunFolder.Create(Store, new RunRecord(
        RunRecord.CurrentFormat, RunFolder.NewId(DateTimeOffset.UtcNow), DateTimeOffset.UtcNow, [], new RunConfig { Kind = RunKind.Prepare, Prepare = recipe }));

    public Task<int> RunAsync(RunFolder run, Action<TrainingEvent>? watch = null, CancellationToken cancel = default) => TrainerProcessMain.RunAsync(run.Path, Store, false, null, cancel, watch);

    /// <summary>Runs a recipe to its end.</summary>
    public async Task<DatasetInfo> PreparedAsync(PrepareConfig recipe)
    {
        RunFolder run = NewRun(recipe);
        int code = await RunAsync(run);
        Assert.True(code == ExitCode.Done, run.Events().OfType<EndedEvent>().Last().Reason);
        AssertProgress(run);
        return Info(recipe.Dataset);
    }

    /// <summary>Runs a recipe that fails, and gives the reason.</summary>
    public async Task<string> RefusedAsync(PrepareConfig recipe, int code = ExitCode.BadConfiguration)
    {
        RunFolder run = NewRun(recipe);
        Assert.Equal(code, await RunAsync(run));
        Assert.False(Directory.Exists(Store.DatasetFolder(recipe.Dataset)));
        return run.Events().OfType<EndedEvent>().Last().Reason!;
    }

    public DatasetInfo Info(string name) => DatasetInfo.Read(Store.DatasetFolder(name));

    /// <summary>The tokens of a whole data set, with the tokenizer beside them as whoever trains on it gets it.</summary>
    public (TokenFile Tokens, Tokenizer Tokenizer) Open(string name)
    {
        TokenFile tokens = TokenFile.Open(Store.DatasetTokens(name));
        tokens.Verify();
        return (tokens, tokens.CheckTokenizer(Data.Tokenization.Tokenizer.Load(Store.DatasetFolder(name), Store.TokenizerPlaces), name));
    }

    /// <summary>The text of each document, without what ends it.</summary>
    public List<string> Texts(string name)
    {
        (TokenFile tokens, Tokenizer tokenizer) = Open(name);
        using (tokens)
        {
            List<string> texts = [];
            for (long i = 0; i < tokens.DocumentCount; i++)
            {
                (long start, int length) = tokens.Document(i);
                int[] ids = new int[length];
                tokens.Read(start, ids);
                texts.Add(tokenizer.Decode(ids.Where(id => id != tokenizer.EndOfTextId)));
            }
            return texts;
        }
    }

    public ChatFile Chat(string name)
    {
        ChatFile file = ChatFile.Open(Store.DatasetTokens(name));
        file.Verify();
        return file;
    }

    /// <summary>The done part never goes back, every attempt ends with all, and no number makes no sense.</summary>
    public static void AssertProgress(RunFolder run)
    {
        ProgressEvent[] told = [.. run.Events().OfType<ProgressEvent>()];
        double[] fractions = [.. told.Select(p => p.Fraction)];
        Assert.Equal(fractions.Order(), fractions);
        Assert.Equal(1, fractions[^1]);
        Assert.All(told, p => Assert.True(p.Fraction is >= 0 and <= 1 && p.BytesPerSecond is null or >= 0 && p.EtaSeconds is null or >= 0, p.ToString()));
        Assert.All(told.Where(p => p.BytesPerSecond is not null || p.EtaSeconds is not null), p => Assert.True(double.IsFinite(p.BytesPerSecond ?? 0) && double.IsFinite(p.EtaSeconds ?? 0), p.ToString()));
    }
}
