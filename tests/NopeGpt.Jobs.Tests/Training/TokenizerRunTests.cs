using System.Text;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Tokenizers;
using NopeGpt.Jobs.Training;
using NopeGpt.Model;

namespace NopeGpt.Tests.Training;

public sealed class TokenizerRunTests : IDisposable
{
    private readonly TemporaryFolder temporary = new();
    private readonly Store store;
    private readonly TokenizerConfig recipe;

    public TokenizerRunTests()
    {
        store = new Store(temporary["root"]);
        recipe = new() { Name = "mine", Source = temporary["text.jsonl"], VocabularySize = 400 };
    }

    private TokenizerLibrary Library => new(store);

    public void Dispose() => temporary.Dispose();

    [Fact]
    public async Task It_is_the_trainers_own_and_its_events_tell_what_it_was_made_from()
    {
        string[] stories = WriteStories(300);
        TokenizerConfig own = recipe with { MinimumFrequency = 3, SpecialTokens = ["<|pad|>", Tokenizer.EndOfText, .. ChatFormat.Markers], Gpt2Words = true };
        RunFolder run = NewRun(own);
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        Tokenizer expected = BytePairTrainer.Train(stories, new BytePairOptions { VocabularySize = 400, MinimumFrequency = 3, SpecialTokens = own.SpecialTokens, Gpt2Words = true });
        Tokenizer made = Library.Load("mine");
        Assert.Equal(expected.Hash, made.Hash);
        Assert.Equal(1, made.SpecialTokens[Tokenizer.EndOfText]);

        IReadOnlyDictionary<string, double> values = run.Events().OfType<MetricsEvent>().Single().Values;
        long bytes = stories.Sum(s => (long)Encoding.UTF8.GetByteCount(s)), tokens = stories.Sum(s => (long)expected.Encode(s).Count);
        Assert.Equal((bytes, 300, 400), (values["data/bytes"], values["data/documents"], values["data/vocabulary_size"]));
        Assert.Equal((double)bytes / tokens, values["data/bytes_per_token"], 10);
        ProgressEvent[] progress = [.. run.Events().OfType<ProgressEvent>()];
        Assert.Equal(["reading the text", "learning the merges", "measuring the tokenizer", "the tokenizer is ready"], progress.Select(p => p.Stage).Distinct());
        Assert.Equal(progress.Select(p => p.Fraction).Order(), progress.Select(p => p.Fraction));
        Assert.Equal(1, progress[^1].Fraction);

        TokenizerInfo info = Library.Info("mine")!;
        Assert.Equal((run.Id, 300, bytes, own.Source), (info.RunId, info.Documents, info.TextBytes, info.Recipe!.Source));
        Assert.True(Library.IsMadeBy(own));
        Assert.False(Library.IsMadeBy(own with { SpecialTokens = [Tokenizer.EndOfText] }));
        Assert.Equal(["mine"], Library.Names);
    }

    [Fact]
    public async Task Stopped_in_the_midst_it_leaves_nothing_and_begins_anew()
    {
        WriteStories(500);
        RunFolder run = NewRun(recipe with { VocabularySize = 1500 });
        using CancellationTokenSource stop = new();
        Assert.Equal(ExitCode.StoppedAndSaved, await RunAsync(run, e =>
        {
            if (e is ProgressEvent { Stage: "learning the merges" }) stop.Cancel();
        }, stop.Token));
        Assert.Contains("begins anew", run.Events().OfType<EndedEvent>().Single().Reason, StringComparison.Ordinal);
        Assert.Empty(Directory.EnumerateFileSystemEntries(store.TokenizersFolder));
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        Assert.Equal([store.TokenizerFolder("mine")], Directory.EnumerateFileSystemEntries(store.TokenizersFolder));
        Assert.Equal(1500, Library.Load("mine").VocabularySize);
    }

    [Fact]
    public async Task Killed_after_its_last_step_it_takes_what_it_had_made_unless_the_text_has_changed()
    {
        WriteStories(50);
        RunFolder run = NewRun(recipe);
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        Assert.Contains(run.Events().OfType<ProgressEvent>(), p => p.Stage == "the tokenizer was there already");
        WriteStories(51);
        RunFolder later = NewRun(recipe);
        Assert.Equal(ExitCode.BadConfiguration, await RunAsync(later));
        Assert.Contains("the text has changed", later.Events().OfType<EndedEvent>().Single().Reason, StringComparison.Ordinal);
        RunFolder other = NewRun(recipe with { VocabularySize = 300 });
        Assert.Equal(ExitCode.BadConfiguration, await RunAsync(other));
        Assert.Contains("tokenizer.name = mine: is taken", other.Events().OfType<EndedEvent>().Single().Reason, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Too_little_text_and_bad_records_are_warned_of_and_no_text_at_all_is_an_error()
    {
        await File.WriteAllLinesAsync(recipe.Source, ["""{"text": "aa aa aa bb"}""", "no json", """{"text": ""}"""]);
        RunFolder run = NewRun(recipe);
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        string[] warnings = [.. run.Events().OfType<WarningEvent>().Select(w => w.Message)];
        Assert.Equal(2, warnings.Length);
        Assert.Contains("1 records, 1 bad, 1 empty", warnings[0], StringComparison.Ordinal);
        Assert.StartsWith("only 259 of 400 tokens came out: no further pair occurs 2 times in 11 bytes of text", warnings[1], StringComparison.Ordinal);

        await File.WriteAllLinesAsync(recipe.Source, ["""{"text": ""}"""]);
        RunFolder empty = NewRun(recipe with { Name = "empty" });
        Assert.Equal(ExitCode.BadConfiguration, await RunAsync(empty));
        Assert.Contains("holds no text", empty.Events().OfType<EndedEvent>().Single().Reason, StringComparison.Ordinal);
        Assert.Equal(["mine"], Library.Names);
    }

    [Fact]
    public async Task A_column_of_another_name_and_a_limit_of_bytes_are_kept_to()
    {
        await File.WriteAllLinesAsync(recipe.Source, Enumerable.Range(0, 100).Select(i => $$"""{"words": "the words of line {{i}}", "other": "{{new string('z', 50)}}"}"""));
        RunFolder run = NewRun(recipe with { TextColumn = "words", MaximumBytes = 1000 });
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        Assert.InRange(run.Events().OfType<MetricsEvent>().Single().Values["data/bytes"], 1000, 1020);
        Assert.Equal([.. "zzzz".Select(z => Library.Load("mine").Encode("z")[0])], Library.Load("mine").Encode("zzzz"));

        RunFolder wrong = NewRun(recipe with { Name = "wrong", TextColumn = "word" });
        Assert.Equal(ExitCode.BadConfiguration, await RunAsync(wrong));
        Assert.Contains("\"word\"", wrong.Events().OfType<EndedEvent>().Single().Reason, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Conversations_are_read_by_their_messages_and_stories_need_no_source()
    {
        await File.WriteAllLinesAsync(recipe.Source, Enumerable.Range(0, 60).Select(i => $$"""{"messages": [{"role": "user", "content": "what is the answer to question {{i}}?"}, {"role": "assistant", "content": "the answer is {{i}}"}]}""").Append("""{"messages": 5}"""));
        RunFolder chat = NewRun(recipe with { VocabularySize = 290 });
        Assert.Equal(ExitCode.Done, await RunAsync(chat));
        Assert.Equal(120, chat.Events().OfType<MetricsEvent>().Single().Values["data/documents"]);
        Assert.Contains("row 61", Assert.Single(chat.Events().OfType<WarningEvent>()).Message, StringComparison.Ordinal);
        Assert.True(Library.Load("mine").Encode("the answer").Count <= 4);

        RunFolder stories = NewRun(recipe with { Name = "stories", Source = PrepareConfig.Stories, MaximumBytes = 50_000 });
        Assert.Equal(ExitCode.Done, await RunAsync(stories));
        Assert.InRange(stories.Events().OfType<MetricsEvent>().Single().Values["data/bytes"], 50_000, 60_000);
    }

    [Fact]
    public void Everything_that_is_wrong_with_its_settings_is_told_at_once()
    {
        RunConfig config = new()
        {
            Kind = RunKind.Tokenizer,
            Tokenizer = new TokenizerConfig { Name = "r50k_base", VocabularySize = 260, MinimumFrequency = -1, SpecialTokens = ["word", "<|a|>", "<|a|>", "", "a\nb", "<|\ud83d|>", new string('x', 65)] },
        };
        (string Field, string Part)[] expected =
        [
            ("tokenizer.minimum_frequency", "must lie from 0"), ("tokenizer.name", "published encoding"), ("tokenizer.source", "or hub:OWNER/NAME"), ("tokenizer.special_tokens", "must include <|endoftext|>"),
            ("tokenizer.special_tokens", "more than once"), ("tokenizer.special_tokens", "spelled by ordinary text"), ("tokenizer.special_tokens", "is empty"),
            ("tokenizer.special_tokens", "control characters"), ("tokenizer.special_tokens", "halves of characters"), ("tokenizer.special_tokens", "longer than 64"), ("tokenizer.vocabulary_size", "need at least 263"),
        ];
        IReadOnlyList<Problem> problems = RunConfigChecks.All(config, store);
        foreach ((string field, string part) in expected) Assert.Contains(problems, p => p.Field == field && p.Message.Contains(part, StringComparison.Ordinal));
        Assert.Contains("tokenizer.name", RunConfigChecks.All(config with { Tokenizer = recipe with { Name = "../up" } }, store).Select(p => p.Field));
        Problem missing = Assert.Single(RunConfigChecks.All(new RunConfig { Kind = RunKind.Tokenizer, Tokenizer = recipe with { SpecialTokens = [Tokenizer.EndOfText, .. ChatFormat.Markers] } }, store));
        Assert.Equal(("tokenizer.source", recipe.Source), (missing.Field, missing.Value));
    }

    private string[] WriteStories(int count)
    {
        string[] stories = [.. StoryGenerator.Stories(5).Take(count)];
        File.WriteAllLines(recipe.Source, stories.Select(s => System.Text.Json.JsonSerializer.Serialize(new { text = s })));
        return stories;
    }

    private RunFolder NewRun(TokenizerConfig tokenizer) => RunFolder.Create(store, new RunRecord(
        RunRecord.CurrentFormat, RunFolder.NewId(DateTimeOffset.UtcNow), DateTimeOffset.UtcNow, [], new RunConfig { Kind = RunKind.Tokenizer, Tokenizer = tokenizer }));

    private Task<int> RunAsync(RunFolder run, Action<TrainingEvent>? watch = null, CancellationToken stop = default) => TrainerProcessMain.RunAsync(run.Path, store, false, null, stop, watch);
}
