using System.Text;
using System.Text.Json;
using NopeGpt.Data;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Tests;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Datasets;

namespace NopeGpt.Tests.Datasets;

/// <summary>Prepare runs over files of every form.</summary>
public sealed class PrepareSourcesTests : IDisposable
{
    private static readonly string[] _texts = ["The cat sat.", "Änd a dog: 猫 🙂\nin two lines", "\"quoted\", and\ttabbed", "the end"];
    private readonly PrepareFixture _fixture = new();

    public void Dispose() => _fixture.Dispose();

    [Theory]
    [InlineData("a.txt")]
    [InlineData("a.jsonl")]
    [InlineData("a.json")]
    [InlineData("a.csv")]
    [InlineData("a.tsv")]
    [InlineData("a.parquet")]
    [InlineData("a.txt.gz")]
    [InlineData("a.jsonl.gz")]
    [InlineData("a.jsonl.zst")]
    [InlineData("a.csv.gz")]
    [InlineData("a.json.zst")]
    [InlineData("a.parquet.gz")]
    public async Task Every_local_format_gives_the_same_documents(string name)
    {
        await WriteTextsAsync(_fixture[name], _texts);
        DatasetInfo info = await _fixture.PreparedAsync(Recipe(_fixture[name]));
        Assert.Equal(_texts, _fixture.Texts("words"));
        Assert.Equal((DatasetKind.Text, 4, _texts.Sum(Encoding.UTF8.GetByteCount), "text=text"), (info.Kind, info.Documents, info.TextBytes, info.Columns));
        Assert.False(info.Reading!.HasProblems);
    }

    [Fact]
    public async Task A_folder_of_several_formats_is_read_in_the_order_of_its_names()
    {
        string[] names = ["1.txt", "2.jsonl.gz", "3.json", "4.csv.zst", "5/6.parquet"];
        foreach (string name in names) await WriteTextsAsync(_fixture["mixed/" + name], [.. _texts.Select(t => name + t)]);
        _fixture.Write("mixed/readme.md", "no data");
        await _fixture.PreparedAsync(Recipe(_fixture["mixed"]));
        Assert.Equal(names.SelectMany(name => _texts.Select(t => name + t)), _fixture.Texts("words"));
        await _fixture.PreparedAsync(Recipe(_fixture["mixed/**/*.parquet"]) with { Dataset = "some" });
        Assert.Equal(_texts.Select(t => names[^1] + t), _fixture.Texts("some"));
    }

    [Fact]
    public async Task Lengths_and_repetitions_are_told()
    {
        string source = _fixture.Write("a.jsonl", Enumerable.Range(0, 100).Select(i => $$"""{"text": "{{string.Concat(Enumerable.Repeat("word ", 1 + (i % 25)))}}"}"""));
        DatasetInfo info = await _fixture.PreparedAsync(Recipe(source));
        using TokenFile tokens = _fixture.Open("words").Tokens;
        Assert.Equal(JsonSerializer.Serialize(TokenStatistics.Of(tokens)), JsonSerializer.Serialize(info.Statistics));
        Assert.Equal(0.75, info.Statistics!.DuplicateShare);
        Assert.Equal(info.Statistics.Longest, Enumerable.Range(0, 100).Max(i => tokens.Document(i).Length));
    }

    [Theory]
    [InlineData("alpaca", PrepareKind.Auto)]
    [InlineData("messages", PrepareKind.Chat)]
    [InlineData("sharegpt", PrepareKind.Auto)]
    public async Task Conversations_of_every_form_are_encoded_as_they_are_meant(string form, PrepareKind kind)
    {
        string source = form switch
        {
            "alpaca" => _fixture.Write("a.json", JsonSerializer.Serialize(new[] { new { instruction = "Say", input = "hello", output = "Hello!" }, new { instruction = "Count", input = "", output = "One" } })),
            "messages" => _fixture.Write("a.jsonl", Messages("Say\n\nhello", "Hello!"), Messages("Count", "One")),
            _ => _fixture.Write("a.jsonl", ShareGpt("Say\n\nhello", "Hello!"), ShareGpt("Count", "One")),
        };
        DatasetInfo info = await _fixture.PreparedAsync(Recipe(source) with { Kind = kind });
        Assert.Equal((DatasetKind.Chat, 2, 2), (info.Kind, info.Documents, info.Chat!.Kept));
        (TokenFile tokens, Tokenizer tokenizer) = _fixture.Open("words");
        tokens.Dispose();
        ChatFormat format = ChatFormat.For(tokenizer);
        using ChatFile chat = _fixture.Chat("words");
        Assert.Equal(format.Encode([new("user", "Say\n\nhello"), new("assistant", "Hello!")]).Tokens, chat[0].Tokens);
        Assert.Equal(format.Encode([new("user", "Count"), new("assistant", "One")]).Tokens, chat[1].Tokens);
    }

    [Theory]
    [InlineData(PrepareKind.Auto, DatasetKind.Preference, 4)]
    [InlineData(PrepareKind.Preference, DatasetKind.Preference, 4)]
    [InlineData(PrepareKind.Chat, DatasetKind.Chat, 2)]
    public async Task Pairs_are_both_answers_and_as_conversations_the_better_one(PrepareKind kind, DatasetKind made, int conversations)
    {
        string source = _fixture.Write("a.jsonl", Enumerable.Range(0, 2).Select(i => $$"""{"chosen": "\n\nHuman: Question {{i}}?\n\nAssistant: Yes.", "rejected": "\n\nHuman: Question {{i}}?\n\nAssistant: No."}"""));
        DatasetInfo info = await _fixture.PreparedAsync(Recipe(source) with { Kind = kind });
        Assert.Equal((made, conversations, "chosen=chosen,rejected=rejected"), (info.Kind, info.Documents, info.Columns));
        Tokenizer tokenizer = Tokenizer.Load(_fixture.Store.DatasetFolder("words"));
        using ChatFile chat = _fixture.Chat("words");
        ChatFormat format = ChatFormat.For(tokenizer);
        Assert.Equal(format.Encode([new("user", "Question 0?"), new("assistant", "Yes.")]).Tokens, chat[0].Tokens);
        if (made == DatasetKind.Preference) Assert.Equal(format.Encode([new("user", "Question 0?"), new("assistant", "No.")]).Tokens, chat[1].Tokens);
    }

    [Fact]
    public async Task Conversations_that_cannot_be_used_are_counted_by_reason_and_told()
    {
        string source = _fixture.Write("a.jsonl", Messages("Hi", "Hello!"), """{"messages": "no list"}""", """{"messages": []}""", "no json");
        RunFolder run = _fixture.NewRun(Recipe(source));
        Assert.Equal(ExitCode.Done, await _fixture.RunAsync(run));
        DatasetInfo info = _fixture.Info("words");
        Assert.Equal((1, 3, 1), (info.Documents, info.Chat!.Read, info.Reading!.Bad));
        // As it was written it is read again.
        Assert.Equal(info.Chat.Dropped.Values.Sum(), info.Chat.Read - info.Chat.Kept);
        Assert.Contains(run.Events().OfType<WarningEvent>(), w => w.Message.Contains("3 records, 1 kept", StringComparison.Ordinal) && w.Message.Contains("row 2", StringComparison.Ordinal));
    }

    [NeedsFact(Needs.SharedData)]
    public async Task The_published_encoding_gets_the_markers_of_conversations_and_only_for_them()
    {
        _fixture.GiveR50k();
        string chat = _fixture.Write("a.jsonl", Messages("Hi", "Hello!")), text = _fixture.Write("a.txt", "Hello!");
        DatasetInfo talks = await _fixture.PreparedAsync(Recipe(chat) with { Tokenizer = "r50k_base", Dataset = "talks" });
        Assert.Equal(50_261, talks.VocabularySize);
        (TokenFile tokens, Tokenizer tokenizer) = _fixture.Open("talks");
        using (tokens) Assert.Equal((50_261, 50_261), (tokens.VocabularySize, tokenizer.VocabularySize));
        Assert.Contains("r50k_base", await File.ReadAllTextAsync(Path.Combine(_fixture.Store.DatasetFolder("talks"), "tokenizer.json")), StringComparison.Ordinal);
        using (ChatFile file = _fixture.Chat("talks")) Assert.Equal(ChatFormat.For(tokenizer).Encode([new("user", "Hi"), new("assistant", "Hello!")]).Tokens, file[0].Tokens);

        DatasetInfo words = await _fixture.PreparedAsync(Recipe(text) with { Tokenizer = "r50k_base" });
        Assert.Equal((50_257, 3), (words.VocabularySize, words.Tokens));
        // Both again, as they stand there.
        await _fixture.PreparedAsync(Recipe(chat) with { Tokenizer = "r50k_base", Dataset = "talks" });
        await _fixture.PreparedAsync(Recipe(text) with { Tokenizer = "r50k_base" });
    }

    [Fact]
    public async Task A_tokenizer_is_one_of_the_store_by_name_a_folder_or_a_file_and_the_same_each_time()
    {
        string source = _fixture.Write("a.jsonl", _texts.Select(t => JsonSerializer.Serialize(new { text = t }))), folder = _fixture.Tokenizer();
        Tokenizer.Load(folder).Save(_fixture.Store.TokenizerFolder("own"));
        (int made, int size) = (0, Tokenizer.Load(folder).VocabularySize);
        foreach (string tokenizer in (string[])["own", folder, Path.Combine(folder, "tokenizer.json")])
        {
            string dataset = $"set{made++}";
            Assert.Equal(size, (await _fixture.PreparedAsync(Recipe(source) with { Tokenizer = tokenizer, Dataset = dataset })).VocabularySize);
            Assert.Equal(_texts, _fixture.Texts(dataset));
        }
    }

    [Fact]
    public async Task A_trained_tokenizer_has_the_size_that_was_asked_for_and_markers_for_conversations()
    {
        string source = _fixture.Write("a.jsonl", Enumerable.Range(0, 60).Select(i => Messages($"Question number {i}, said the {i} th asker?", $"The answer to question number {i} is {i}.")));
        DatasetInfo info = await _fixture.PreparedAsync(Recipe(source) with { Tokenizer = "", VocabularySize = 320 });
        Assert.Equal(320, info.VocabularySize);
        Tokenizer tokenizer = Tokenizer.Load(_fixture.Store.DatasetFolder("words"));
        Assert.All(ChatFormat.Markers, marker => Assert.True(tokenizer.SpecialTokens[marker] < 320));
        Assert.Equal(tokenizer.Hash, tokenizer.WithChatMarkers().Hash);
    }

    [Fact]
    public async Task The_columns_of_a_recipe_count_before_well_known_ones()
    {
        string source = _fixture.Write("a.jsonl", """{"text": "one", "note": "first", "q": "ask", "a": "answer"}""", """{"text": "two", "note": "second", "q": "ask", "a": "answer"}""");
        await _fixture.PreparedAsync(Recipe(source) with { Columns = "text=note" });
        Assert.Equal(["first", "second"], _fixture.Texts("words"));
        await _fixture.PreparedAsync(Recipe(source) with { TextColumn = "note", Dataset = "short" });
        Assert.Equal(["first", "second"], _fixture.Texts("short"));
        DatasetInfo info = await _fixture.PreparedAsync(Recipe(source) with { Columns = "prompt=q, completion=a", Dataset = "talks" });
        Assert.Equal((DatasetKind.Chat, 2), (info.Kind, info.Documents));
    }

    [Theory]
    [InlineData("text=body", PrepareKind.Auto, "\"note\"")]
    [InlineData("", PrepareKind.Auto, "\"note\"")]
    [InlineData("", PrepareKind.Preference, "chosen and rejected")]
    [InlineData("text=note", PrepareKind.Chat, "prepare.kind = chat asks for conversations")]
    public async Task Wrong_columns_name_those_that_are_there(string columns, PrepareKind kind, string named)
    {
        string source = _fixture.Write("a.jsonl", """{"note": "first", "id": 1}""");
        string reason = await _fixture.RefusedAsync(Recipe(source) with { Columns = columns, Kind = kind });
        Assert.Contains(named, reason, StringComparison.Ordinal);
        if (kind != PrepareKind.Chat) Assert.Contains("\"note\", \"id\"", reason, StringComparison.Ordinal);
        Assert.Empty(Directory.EnumerateFileSystemEntries(_fixture.Store.DatasetsFolder));
    }

    [Fact]
    public async Task A_source_without_any_document_is_refused_and_leaves_nothing()
    {
        string source = _fixture.Write("a.jsonl", """{"text": ""}""", """{"text": 5}""");
        Assert.Contains("holds no text in text=text", await _fixture.RefusedAsync(Recipe(source)), StringComparison.Ordinal);
        Assert.Empty(Directory.EnumerateFileSystemEntries(_fixture.Store.DatasetsFolder));
    }

    [Fact]
    public async Task Conversations_have_no_bound_on_tokens_even_where_only_the_columns_tell_that_they_are_some()
    {
        string source = _fixture.Write("a.jsonl", Messages("Hi", "Hello!"));
        Assert.Contains("prepare.max_tokens = 5", await _fixture.RefusedAsync(Recipe(source) with { MaxTokens = 5 }), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_bound_on_tokens_is_reached_with_a_whole_document_and_the_same_for_any_number_of_workers_and_after_a_stop()
    {
        string[] documents = [.. Enumerable.Range(0, 4500).Select(i => $"Document {i}: {new string((char)('a' + (i % 26)), 600)}")];
        PrepareConfig recipe = Recipe(_fixture.Write("a.jsonl", documents.Select(d => JsonSerializer.Serialize(new { text = d })))) with { Tokenizer = _fixture.Tokenizer() };
        Tokenizer tokenizer = Tokenizer.Load(recipe.Tokenizer);
        int[] lengths = [.. documents.Select(d => tokenizer.Encode(d).Count + 1)];
        int kept = 0, sum = 0, most = lengths.Sum() * 3 / 4;
        while (sum < most) sum += lengths[kept++];
        recipe = recipe with { MaxTokens = most };
        foreach (int workers in (int[])[1, 4])
        {
            DatasetInfo info = await _fixture.PreparedAsync(recipe with { Workers = workers, Dataset = $"set{workers}" });
            Assert.Equal((kept, sum, kept), (info.Documents, info.Tokens, info.Reading!.Records));
        }
        RunFolder run = _fixture.NewRun(recipe with { Dataset = "stopped", Workers = 1 });
        using CancellationTokenSource stop = new();
        Assert.Equal(ExitCode.StoppedAndSaved, await _fixture.RunAsync(run, e =>
        {
            if (e is ProgressEvent { Stage: "encoding" }) stop.Cancel();
        }, stop.Token));
        Assert.Equal(ExitCode.Done, await _fixture.RunAsync(run));
        byte[] expected = await File.ReadAllBytesAsync(_fixture.Store.DatasetTokens("set1"));
        Assert.Equal(expected, await File.ReadAllBytesAsync(_fixture.Store.DatasetTokens("set4")));
        Assert.Equal(expected, await File.ReadAllBytesAsync(_fixture.Store.DatasetTokens("stopped")));
        Assert.Equal(documents[..kept], _fixture.Texts("set4"));
    }

    [Fact]
    public async Task What_an_attempt_left_of_files_that_have_changed_is_thrown_away()
    {
        PrepareConfig recipe = Recipe(_fixture.Write("a.txt", "abc abc abd")) with { Tokenizer = "", VocabularySize = 262 };
        RunFolder run = _fixture.NewRun(recipe);
        // Ends when the tokenizer of the first text is made.
        Assert.Equal(ExitCode.Defect, await _fixture.RunAsync(run, e =>
        {
            if (e is ProgressEvent { Stage: "encoding" }) throw new InvalidOperationException("no more");
        }));
        Assert.Single(Directory.GetFiles(_fixture.Store.DatasetsFolder, "tokenizer.json", SearchOption.AllDirectories));
        _fixture.Write("a.txt", "xyz xyz xyw");
        Assert.Equal(ExitCode.Done, await _fixture.RunAsync(run));
        await _fixture.PreparedAsync(recipe with { Dataset = "straight" });
        Assert.Equal(await File.ReadAllBytesAsync(_fixture.Store.DatasetTokens("straight")), await File.ReadAllBytesAsync(_fixture.Store.DatasetTokens("words")));
        Assert.Equal(_fixture.Info("straight").TokenizerHash, _fixture.Info("words").TokenizerHash);
    }

    [Fact]
    public async Task What_is_encoded_is_not_encoded_again_when_the_last_steps_are_cut_off()
    {
        RunFolder run = _fixture.NewRun(Recipe(_fixture.Write("a.txt", "The cat sat.")));
        bool met = false;
        Assert.Equal(ExitCode.Defect, await _fixture.RunAsync(run, e =>
        {
            if (e is not MetricsEvent || met) return;
            met = true;
            throw new InvalidOperationException("no more");
        }));
        string aside = Assert.Single(Directory.GetDirectories(_fixture.Store.DatasetsFolder));
        DateTime written = File.GetLastWriteTimeUtc(Path.Combine(aside, "tokens.bin"));
        Assert.Equal(ExitCode.Done, await _fixture.RunAsync(run));
        Assert.DoesNotContain(run.Events().SkipWhile(e => e is not EndedEvent).OfType<ProgressEvent>(), p => p.Stage == "encoding");
        Assert.Equal(written, File.GetLastWriteTimeUtc(_fixture.Store.DatasetTokens("words")));
        Assert.Equal(["dataset.json", "tokenizer.json", "tokens.bin"], Directory.GetFiles(_fixture.Store.DatasetFolder("words")).Select(Path.GetFileName).Order());
        Assert.Equal(["The cat sat.\n".TrimEnd()], _fixture.Texts("words"));
    }

    [Fact]
    public async Task The_same_source_written_in_another_way_is_the_same()
    {
        string source = _fixture.Write("a.txt", "The cat sat.");
        await _fixture.PreparedAsync(Recipe(source));
        RunFolder again = _fixture.NewRun(Recipe(Path.Combine(Path.GetDirectoryName(source)!, ".", "a.txt")) with { Workers = 3 });
        Assert.Equal(ExitCode.Done, await _fixture.RunAsync(again));
        Assert.Equal("the data set was there already", again.Events().OfType<ProgressEvent>().Last().Stage);
    }

    private PrepareConfig Recipe(string source) => new() { Source = source, Tokenizer = _fixture.Tokenizer(), Dataset = "words" };

    private static string Messages(string question, string answer) => JsonSerializer.Serialize(new { messages = new[] { new { role = "user", content = question }, new { role = "assistant", content = answer } } });

    private static string ShareGpt(string question, string answer) => JsonSerializer.Serialize(new { conversations = new[] { new { from = "human", value = question }, new { from = "gpt", value = answer } } });

    private static async Task WriteTextsAsync(string path, string[] texts)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        string plain = path.Split('.')[^1] is "gz" or "zst" ? Path.ChangeExtension(path, null) : path;
        switch (Path.GetExtension(plain))
        {
            case ".parquet": await SourceFiles.TextsAsync(plain, texts, 3); break;
            case ".txt": await File.WriteAllTextAsync(plain, string.Join("\n<|endoftext|>\n", texts)); break;
            case ".jsonl": await File.WriteAllLinesAsync(plain, texts.Select(t => JsonSerializer.Serialize(new { id = 1, text = t, more = new[] { "x" } }))); break;
            case ".json": await File.WriteAllTextAsync(plain, JsonSerializer.Serialize(texts.Select(t => new { text = t, id = 2 }))); break;
            case ".csv": await File.WriteAllTextAsync(plain, "id,text\n" + string.Concat(texts.Select((t, i) => $"{i},\"{t.Replace("\"", "\"\"", StringComparison.Ordinal)}\"\n"))); break;
            default: await File.WriteAllTextAsync(plain, "id\ttext\n" + string.Concat(texts.Select((t, i) => $"{i}\t\"{t.Replace("\"", "\"\"", StringComparison.Ordinal)}\"\n"))); break;
        }
        if (plain == path) return;
        byte[] bytes = await File.ReadAllBytesAsync(plain);
        await File.WriteAllBytesAsync(path, path.EndsWith(".gz", StringComparison.Ordinal) ? SourceFiles.Gzip(bytes) : SourceFiles.Zstandard(bytes));
        File.Delete(plain);
    }
}
