using System.Text.Json;
using NopeGpt.Data;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Tests;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs.Datasets;
using NopeGpt.Jobs.Tests.Queue;
using NopeGpt.Tests;
using NopeGpt.Tests.Datasets;

namespace NopeGpt.Jobs.Tests.Commands;

public sealed class DataPrepareVerbTests : IDisposable
{
    private readonly PrepareFixture _fixture = new();

    public void Dispose() => _fixture.Dispose();

    [Fact]
    public async Task Text_becomes_a_token_file_with_its_tokenizer_and_a_document_that_tells_of_it()
    {
        string source = _fixture.Write("a.jsonl", """{"text": "one cat"}""", """{"text": "the dog"}""", """{"text": "the dog"}""", """{"text": 4}""");
        JsonElement told = await PreparedAsync("out/a.bin", "--source", source, "--tokenizer", _fixture.Tokenizer(), "--end-of-text", "before");
        using TokenFile file = TokenFile.Open(_fixture["out/a.bin"]);
        file.Verify();
        Tokenizer tokenizer = Tokenizer.Load(_fixture["out"]);
        Assert.Equal(tokenizer.Hash, file.TokenizerHash);
        Assert.Equal((3, 21, EndOfText.Before), (file.DocumentCount, file.TextBytes, file.EndOfText));
        Assert.Equal([_fixture["out/a.bin"], _fixture["out/tokenizer.json"]], Directory.EnumerateFileSystemEntries(_fixture["out"]).Order());
        Assert.Equal((_fixture["out/a.bin"], _fixture["out/tokenizer.json"], "text"), (Text(told, "out"), Text(told, "tokenizer"), Text(told, "kind")));
        Assert.Equal((3, file.Count, 21, 0), (Whole(told, "documents"), Whole(told, "tokens"), Whole(told, "text_bytes"), Whole(told, "resumed_documents")));
        Assert.Equal(1 / 3.0, told.GetProperty("duplicates").GetDouble(), 9);
        Assert.Equal(21.0 / file.Count, told.GetProperty("bytes_per_token").GetDouble(), 9);
        Assert.True(told.GetProperty("seconds").GetDouble() > 0 && told.GetProperty("megabytes_per_second").GetDouble() >= 0);
        Assert.Equal((3, 1), (Whole(told.GetProperty("reading"), "records"), Whole(told.GetProperty("reading"), "bad")));
    }

    [Fact]
    public async Task Conversations_have_their_messages_beside_them()
    {
        string source = _fixture.Write("a.json", JsonSerializer.Serialize(new[] { new { instruction = "Say hello", input = "", output = "Hello!" } }));
        Assert.Equal("chat", Text(await PreparedAsync("out/a.bin", "--source", source, "--tokenizer", _fixture.Tokenizer()), "kind"));
        Assert.Equal(["a.bin", "a.messages", "tokenizer.json"], Names("out"));
        using ChatFile chat = ChatFile.Open(_fixture["out/a.bin"]);
        chat.Verify();
        Tokenizer tokenizer = chat.Tokens.CheckTokenizer(Tokenizer.Load(_fixture["out"]), "out");
        Assert.Equal(ChatFormat.For(tokenizer).Encode([new("user", "Say hello"), new("assistant", "Hello!")]).Tokens, chat[0].Tokens);
        // Plain text with the same tokenizer is another vocabulary, and more of the same conversations are not.
        Assert.Equal(ExitCode.Done, (await RunAsync("out/b.bin", "--source", source, "--tokenizer", _fixture.Tokenizer())).Code);
        (int code, _, string errors) = await RunAsync("out/c.bin", "--source", _fixture.Write("a.txt", "text"), "--tokenizer", _fixture.Tokenizer());
        Assert.Equal(ExitCode.BadConfiguration, code);
        Assert.Contains("is another tokenizer", errors, StringComparison.Ordinal);
        Assert.Equal(["a.bin", "a.messages", "b.bin", "b.messages", "tokenizer.json"], Names("out"));
    }

    [NeedsFact(Needs.SharedData)]
    public async Task Text_and_conversations_of_one_published_encoding_share_a_folder()
    {
        _fixture.GiveR50k();
        string text = _fixture.Write("a.txt", "Hello there!"), chat = _fixture.Write("a.jsonl", """{"prompt": "Hi", "completion": "Hello!"}""");
        Assert.Equal(50_257, Whole(await PreparedAsync("out/a.bin", "--source", text, "--tokenizer", "r50k_base"), "vocabulary_size"));
        Assert.Equal(50_261, Whole(await PreparedAsync("out/b.bin", "--source", chat, "--tokenizer", "r50k_base"), "vocabulary_size"));
        Tokenizer tokenizer = Tokenizer.Load(_fixture["out"], _fixture.Store.TokenizerPlaces);
        foreach (string name in (string[])["a.bin", "b.bin"])
        {
            using TokenFile file = TokenFile.Open(_fixture["out/" + name]);
            _ = file.CheckTokenizer(tokenizer, "out");
        }
    }

    [Fact]
    public async Task Another_tokenizer_beside_the_file_is_refused_before_any_work_and_a_trained_one_too()
    {
        string source = _fixture.Write("a.txt", "one cat"), theirs = _fixture["out"];
        BytePairTrainer.Train(["something else"], 265).Save(theirs);
        byte[] before = await File.ReadAllBytesAsync(Path.Combine(theirs, "tokenizer.json"));
        foreach (string[] given in (string[][])[["--tokenizer", _fixture.Tokenizer()], []])
        {
            (int code, string output, string errors) = await RunAsync("out/a.bin", ["--source", source, .. given]);
            Assert.Equal((ExitCode.BadConfiguration, ""), (code, output));
            Assert.Contains($"--tokenizer {Path.Combine(theirs, "tokenizer.json")}", errors, StringComparison.Ordinal);
            Assert.Equal(["tokenizer.json"], Names("out"));
        }
        // As the sentence says.
        Assert.Equal(ExitCode.Done, (await RunAsync("out/a.bin", "--source", source, "--tokenizer", Path.Combine(theirs, "tokenizer.json"))).Code);
        Assert.Equal(before, await File.ReadAllBytesAsync(Path.Combine(theirs, "tokenizer.json")));
        // It is there now, and not overwritten.
        (int again, _, string there) = await RunAsync("out/a.bin", "--source", source, "--tokenizer", theirs);
        Assert.Equal(ExitCode.BadConfiguration, again);
        Assert.Contains("--out = ", there, StringComparison.Ordinal);
        Assert.Contains("is there already", there, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("KILL")]
    [InlineData("INT")]
    public async Task Killed_or_stopped_the_same_command_goes_on_and_makes_the_same_file(string signal)
    {
        string source = Large();
        await PreparedAsync("straight/a.bin", "--source", source, "--tokenizer", _fixture.Tokenizer());
        string[] command = ["data", "prepare", "--source", source, "--tokenizer", _fixture.Tokenizer(), "--out", _fixture["out/a.bin"], "--root", _fixture.Store.Root, "--workers", "1"];
        string journal = _fixture["out/.a.bin.new/tokens.bin.parts/journal"];
        using (NopeGptProcess process = new(command))
        {
            await WaitFor.TrueAsync(() => File.Exists(journal) && File.ReadLines(journal).Count() > 2, "a finished shard");
            process.Signal(signal);
            (int code, _, string errors) = await process.EndAsync();
            Assert.NotEqual(ExitCode.Done, code);
            if (signal == "INT")
            {
                Assert.Equal(130, code);
                Assert.Contains("the same command goes on", errors, StringComparison.Ordinal);
            }
        }
        Assert.Equal([".a.bin.new"], Names("out"));
        JsonElement told = await PreparedAsync("out/a.bin", "--source", source, "--tokenizer", _fixture.Tokenizer());
        Assert.True(Whole(told, "resumed_documents") > 0);
        Assert.Equal(await File.ReadAllBytesAsync(_fixture["straight/a.bin"]), await File.ReadAllBytesAsync(_fixture["out/a.bin"]));
        Assert.Equal(["a.bin", "tokenizer.json"], Names("out"));
    }

    [Fact]
    public async Task What_another_command_left_is_not_gone_on_with_and_two_at_once_do_not_mix()
    {
        string source = Large();
        string[] command = ["data", "prepare", "--source", source, "--tokenizer", _fixture.Tokenizer(), "--out", _fixture["out/a.bin"], "--root", _fixture.Store.Root, "--workers", "1"];
        using (NopeGptProcess process = new(command))
        {
            await WaitFor.TrueAsync(() => File.Exists(_fixture["out/.a.bin.new/tokens.bin.parts/journal"]), "the beginning");
            process.Signal("STOP");
            (int code, _, string errors) = await NopeGptProcess.RunAsync(command);
            Assert.Equal(ExitCode.BadConfiguration, code);
            Assert.Contains("another process is making", errors, StringComparison.Ordinal);
            process.Signal("KILL");
            await process.EndAsync();
        }
        string other = _fixture.Write("other.txt", "one cat");
        JsonElement told = await PreparedAsync("out/a.bin", "--source", other, "--tokenizer", _fixture.Tokenizer());
        Assert.Equal((1, 0), (Whole(told, "documents"), Whole(told, "resumed_documents")));
        Assert.Equal(["a.bin", "tokenizer.json"], Names("out"));
    }

    [Fact]
    public async Task A_data_set_of_the_store_is_made_by_a_run()
    {
        string source = _fixture.Write("a.csv", "id,body", "1,one cat", "2,the dog");
        (int code, string output, string errors) = await NopeGptProcess.RunAsync("data", "prepare", "--source", source, "--text_column", "body", "--vocabulary_size", "262", "--dataset", "pets", "--json", "--root", _fixture.Store.Root);
        Assert.True(code == ExitCode.Done, errors);
        JsonElement told = JsonDocument.Parse(output).RootElement;
        DatasetInfo info = _fixture.Info("pets");
        Assert.Equal((_fixture.Store.DatasetTokens("pets"), "pets", info.RunId), (Text(told, "out"), Text(told, "dataset"), Text(told, "run")));
        Assert.True(RunFolder.TryOpen(_fixture.Store, info.RunId, out RunFolder? run));
        Assert.Equal((RunKind.Prepare, source), (run.Read().Config.Kind, run.Read().Config.Prepare.Source));
        PrepareFixture.AssertProgress(run);
        Assert.Equal(["one cat", "the dog"], _fixture.Texts("pets"));
    }

    [Fact]
    public async Task Stories_and_a_data_set_of_the_Hub_are_sources_too()
    {
        JsonElement stories = await PreparedAsync("out/stories.bin", "--source", "stories", "--corpus_bytes", "20000", "--vocabulary_size", "300", "--seed", "3");
        Assert.Equal(300, Whole(stories, "vocabulary_size"));
        Assert.Equal(["stories.bin", "tokenizer.json"], Names("out"));
        using HubServer hub = new();
        hub.Publish("someone/stories", new Dictionary<string, byte[]> { ["train.jsonl"] = "{\"text\": \"one\"}\n{\"text\": \"two\"}\n"u8.ToArray() }, new { license = "mit" });
        string[] command = ["data", "prepare", "--source", "someone/stories", "--tokenizer", _fixture.Tokenizer(), "--out", _fixture["hub/a.bin"], "--json", "--root", _fixture.Store.Root];
        using NopeGptProcess process = new(new Dictionary<string, string> { ["NOPEGPT_Hub__Endpoint"] = hub.Endpoint.ToString() }, command);
        (int code, string output, string errors) = await process.EndAsync();
        Assert.True(code == ExitCode.Done, errors);
        JsonElement told = JsonDocument.Parse(output).RootElement;
        Assert.Equal(("mit", 2), (Text(told, "licence"), Whole(told, "documents")));
        Assert.StartsWith("hub:someone/stories@", Text(told, "origin"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Everything_that_is_wrong_is_named_at_once()
    {
        Directory.CreateDirectory(_fixture["folder"]);
        (int code, string output, string errors) = await NopeGptProcess.RunAsync("data", "prepare", "--source", _fixture["nothing.txt"], "--kind", "book", "--columns", "text", "--vocabulary_size", "3", "--max_tokens", "many", "--out", _fixture["folder"], "--dataset", "a/b", "--tokenizer", "r50k_bose", "--seed", "x", "--wrokers", "2", "--root", _fixture.Store.Root);
        Assert.Equal((ExitCode.BadConfiguration, ""), (code, output));
        foreach (string says in (string[])
        [
            "--kind = book: must be one of auto, text, chat, preference", "--columns = text: ", "--vocabulary_size = 3: must lie from 257", "--max_tokens = many: must be a whole number", "--out = ", "a folder has this name",
            "--dataset = a/b: cannot be a name", "give either --out FILE", $"--source = {_fixture["nothing.txt"]}: ", "--tokenizer = r50k_bose: ", "--seed = x", "there is no option --wrokers: did you mean --workers?",
        ])
            Assert.Contains(says, errors, StringComparison.Ordinal);
        (code, _, errors) = await NopeGptProcess.RunAsync("data", "prepare", "--root", _fixture.Store.Root);
        Assert.Equal(ExitCode.BadConfiguration, code);
        Assert.Contains("'--source' is required", errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_is_wrong_in_the_files_is_said_in_the_words_of_the_options_and_leaves_nothing()
    {
        string source = _fixture.Write("a.jsonl", """{"note": "one cat", "id": 1}""");
        (int code, _, string errors) = await RunAsync("out/a.bin", "--source", source, "--columns", "text=body", "--tokenizer", _fixture.Tokenizer());
        Assert.Equal(ExitCode.BadConfiguration, code);
        Assert.Contains($"--source = {source}: {source} has no column \"body\"; it has \"note\", \"id\"", errors, StringComparison.Ordinal);
        Assert.Empty(Names("out"));
    }

    private string Large() => _fixture.Write("large.jsonl", Enumerable.Repeat($$"""{"text": "{{string.Concat(Enumerable.Range(0, 400).Select(i => $"The {i}th word of it. "))}}"}""", 3000));

    private string[] Names(string folder) => [.. Directory.EnumerateFileSystemEntries(_fixture[folder]).Select(path => Path.GetFileName(path)!).Order(StringComparer.Ordinal)];

    private Task<(int Code, string Output, string Errors)> RunAsync(string file, params string[] arguments) =>
        NopeGptProcess.RunAsync(["data", "prepare", .. arguments, "--out", _fixture[file], "--root", _fixture.Store.Root]);

    private async Task<JsonElement> PreparedAsync(string file, params string[] arguments)
    {
        (int code, string output, string errors) = await RunAsync(file, [.. arguments, "--json"]);
        Assert.True(code == ExitCode.Done, errors);
        Assert.Contains($"{_fixture[file]}: ", errors, StringComparison.Ordinal);
        return JsonDocument.Parse(output).RootElement;
    }

    private static string Text(JsonElement told, string name) => told.GetProperty(name).GetString()!;

    private static long Whole(JsonElement told, string name) => told.GetProperty(name).GetInt64();
}
