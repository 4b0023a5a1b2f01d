using System.Diagnostics;
using System.Text;
using System.Text.Json;
using NopeGpt.Data.Tests;
using NopeGpt.Data.Tokenization;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Commands;

/// <summary>`tokenizer encode` and `tokenizer decode` as processes.</summary>
public sealed class TokenizerEncodingTests : IDisposable
{
    private static readonly Lazy<Tokenizer> _trained = new(() =>
        BytePairTrainer.Train(["the cat and the hat, the mat and the rat", .. NopeGpt.Data.Documents.StoryGenerator.Stories(1).Take(9)], new BytePairOptions { VocabularySize = 280, SpecialTokens = [Tokenizer.EndOfText, "<|user|>"] }));
    private readonly TemporaryFolder _folder = new();

    public TokenizerEncodingTests() => _trained.Value.Save(Ours);

    private string Ours => _folder["root/tokenizers/ours"];

    public void Dispose() => _folder.Dispose();

    private static Task<(int Code, string Output, string Errors)> RunAsync(string input, params string[] arguments) => NopeGptProcess.RunWithInputAsync(Encoding.UTF8.GetBytes(input), ["tokenizer", .. arguments]);

    private static async Task<string[]> LinesAsync(string input, params string[] arguments)
    {
        (int code, string output, string errors) = await RunAsync(input, arguments);
        Assert.True(code == 0, errors);
        Assert.EndsWith("\n", output, StringComparison.Ordinal);
        return output[..^1].Split('\n');
    }

    private static int[] Ids(string line) => JsonSerializer.Deserialize<int[]>(line)!;

    [NeedsTheory(Needs.SharedData)]
    [InlineData("r50k_base")]
    [InlineData("p50k_base")]
    [InlineData("cl100k_base")]
    [InlineData("o200k_base")]
    public async Task The_golden_encodings_come_out_and_go_back(string name)
    {
        JsonElement[] golden = [.. File.ReadLines(Needs.Data("tokenizers/golden-encodings.jsonl")).Select(line => JsonDocument.Parse(line).RootElement)];
        string texts = string.Concat(golden.Select(g => g.GetProperty("text").GetRawText() + "\n")), field = name.Replace("_base", "", StringComparison.Ordinal);
        string[] places = ["--tokenizer", name, "--tiktoken", Needs.Data("tokenizers"), "--root", _folder["root"]], encoded = await LinesAsync(texts, ["encode", .. places]);
        Assert.Equal(golden.Select(g => string.Join(',', g.GetProperty(field).EnumerateArray())), encoded.Select(line => line[1..^1]));
        string[] decoded = await LinesAsync(string.Join('\n', encoded), ["decode", .. places]);
        Assert.Equal(golden.Select(g => g.GetProperty("text").GetString()), decoded.Select(line => JsonSerializer.Deserialize<string>(line)));
    }

    [Fact]
    public async Task A_tokenizer_is_a_name_of_the_store_a_folder_or_a_file()
    {
        string expected = $"[{string.Join(',', _trained.Value.Encode("the cat"))}]";
        foreach (string[] named in (string[][])[["ours", "--root", _folder["root"]], [Ours], [Path.Combine(Ours, "tokenizer.json")]])
            Assert.Equal([expected], await LinesAsync("\"the cat\"\n", ["encode", "--tokenizer", .. named]));
    }

    [NeedsFact(Needs.SharedData)]
    public async Task A_file_of_llama2_c_will_do()
    {
        string file = Needs.Data("weights/tok512.bin");
        string[] encoded = await LinesAsync("\"Once upon a time\"", "encode", "--tokenizer", file);
        Assert.Equal(Tokenizer.Load(file).Encode("Once upon a time"), Ids(encoded[0]));
        Assert.Equal(["\"Once upon a time\""], await LinesAsync(encoded[0], "decode", "--tokenizer", file));
    }

    [NeedsFact(Needs.SharedData)]
    public async Task A_published_encoding_is_fetched_once_into_the_stores_cache()
    {
        using ScriptedServer server = new(_ => ScriptedServer.Ok(File.ReadAllBytes(Needs.Data("tokenizers/r50k_base.tiktoken"))));
        for (int i = 0; i < 2; i++)
        {
            using NopeGptProcess encode = new(new Dictionary<string, string> { ["NOPEGPT_Tokenizers__Address"] = server.Address.ToString() }, ["tokenizer", "encode", "--tokenizer", "r50k_base", "--root", _folder["new"]]);
            await encode.Input.WriteAsync("\"hello world\""u8.ToArray());
            encode.Input.Close();
            (int code, string output, string errors) = await encode.EndAsync();
            Assert.True(code == 0, errors);
            Assert.Equal("[31373,995]\n", output);
        }
        Assert.Equal(["GET /encodings/r50k_base.tiktoken"], server.Requests.Select(r => r.Split(" HTTP")[0]));
        Assert.True(File.Exists(_folder["new/cache/r50k_base.tiktoken"]));
    }

    [Fact]
    public async Task Random_texts_survive_the_way_there_and_back()
    {
        int seed = Environment.TickCount;
        Random random = new(seed);
        string[] texts = [.. Enumerable.Range(0, 3000).Select(_ => RandomText.Next(random, 30))];
        string[] encoded = await LinesAsync(string.Concat(texts.Select(t => JsonSerializer.Serialize(t) + "\n")), "encode", "--tokenizer", Ours);
        string[] decoded = await LinesAsync(string.Join("\r\n", encoded), "decode", "--tokenizer", Ours);
        Assert.Equal(texts.Length, encoded.Length);
        for (int i = 0; i < texts.Length; i++)
        {
            Assert.True(_trained.Value.Encode(texts[i]).SequenceEqual(Ids(encoded[i])), $"seed {seed}, text {i}");
            Assert.True(texts[i] == JsonSerializer.Deserialize<string>(decoded[i]), $"seed {seed}, text {i}");
        }
    }

    [Fact]
    public async Task Byte_order_mark_line_ends_of_Windows_blank_lines_and_a_missing_last_line_end_change_nothing()
    {
        byte[] input = [0xEF, 0xBB, 0xBF, .. "\"the cat\"\r\n\r\n   \n\t \"caf\\u00e9 \\ud83d\\ude00\"  \n\"\"\n\n\n\"the"u8, .. "\""u8];
        (int code, string output, string errors) = await NopeGptProcess.RunWithInputAsync(input, "tokenizer", "encode", "--tokenizer", Ours);
        Assert.Equal((0, ""), (code, errors));
        Assert.Equal(string.Concat(new[] { "the cat", "café 😀", "", "the" }.Select(t => $"[{string.Join(',', _trained.Value.Encode(t))}]\n")), output);
        (code, output, errors) = await RunAsync("", "encode", "--tokenizer", Ours);
        Assert.Equal((0, "", ""), (code, output, errors));
        Assert.Equal(["\"\"", "\"the\""], await LinesAsync($"\n[]\r\n [ {string.Join("  ,\t", _trained.Value.Encode("the"))} ] ", "decode", "--tokenizer", Ours));
    }

    [Fact]
    public async Task What_is_no_text_becomes_the_replacement_character_and_is_counted()
    {
        byte[] input = [.. "\"a\\ud800b\"\n\"ok\"\n\""u8, 0xFF, .. "\"\n\"\\ude00\\n"u8, 0xC3, .. "\"\n"u8];
        (int code, string output, string errors) = await NopeGptProcess.RunWithInputAsync(input, "tokenizer", "encode", "--tokenizer", Ours);
        Assert.Equal(0, code);
        Assert.Contains("3 line(s) had halves of characters or bytes that are not UTF-8", errors, StringComparison.Ordinal);
        string[] decoded = await LinesAsync(output, "decode", "--tokenizer", Ours);
        Assert.Equal(["a\ufffdb", "ok", "\ufffd", "\ufffd\n\ufffd"], decoded.Select(line => JsonSerializer.Deserialize<string>(line)));
    }

    [Fact]
    public async Task Ids_that_are_no_text_together_decode_with_replacement_characters()
    {
        int[] bytes = [.. Enumerable.Range(0, 256).Select(value => Enumerable.Range(0, _trained.Value.VocabularySize).First(id => _trained.Value.Bytes(id) is [var only] && only == value))];
        byte[][] broken = [[0xFF], [0xE6, 0x97], [0x61, 0xE6, 0x97, 0xA5, 0x62], [0xF0, 0x9F, 0x98], [0xE2, 0x82, 0x41], [0x80, 0x80], [0xED, 0xA0, 0x80]];
        string[] decoded = await LinesAsync(string.Join('\n', broken.Select(b => $"[{string.Join(", ", b.Select(value => bytes[value]))}]")), "decode", "--tokenizer", Ours);
        // One for each longest beginning of a character, as Python's errors="replace" has it.
        Assert.Equal(["\ufffd", "\ufffd", "a日b", "\ufffd", "\ufffdA", "\ufffd\ufffd", "\ufffd\ufffd\ufffd"], decoded.Select(line => JsonSerializer.Deserialize<string>(line)));
    }

    [Fact]
    public async Task A_special_tokens_text_becomes_its_id_only_when_asked_for()
    {
        const string Text = "\"the<|user|>cat<|endoftext|>\"";
        int user = _trained.Value.SpecialTokens["<|user|>"], end = _trained.Value.EndOfTextId;
        int[] plain = Ids((await LinesAsync(Text, "encode", "--tokenizer", Ours))[0]), special = Ids((await LinesAsync(Text, "encode", "--special", "--tokenizer", Ours))[0]);
        Assert.DoesNotContain(user, plain);
        Assert.Equal([.. _trained.Value.Encode("the"), user, .. _trained.Value.Encode("cat"), end], special);
        Assert.Equal([Text, Text], await LinesAsync($"{JsonSerializer.Serialize(plain)}\n{JsonSerializer.Serialize(special)}", "decode", "--tokenizer", Ours));
    }

    [Theory]
    [InlineData("encode", "\"the\"\n\nhello\n\"cat\"", "line 3: hello is not valid JSON", "give one JSON string a line")]
    [InlineData("encode", "\"the\"\n\"cat\n", "line 2: \"cat is not valid JSON")]
    [InlineData("encode", "\"the\"\n\"a\" \"b\"\n", "line 2: \"a\" \"b\" is not valid JSON")]
    [InlineData("encode", "\"the\"\n\"a\tb\"\n", "line 2: ", "is not valid JSON")]
    [InlineData("encode", "\"the\"\n42\n", "line 2: 42 is no JSON string")]
    [InlineData("encode", "\"the\"\n{\"text\": \"cat\"}\n", "line 2: {\"text\": \"cat\"} is no JSON string")]
    [InlineData("decode", "[0]\n[1, 2.5]\n", "line 2: value 2 is 2.5, which is no whole number: give whole numbers from 0 to 279")]
    [InlineData("decode", "[0]\n[280, 1]\n", "line 2: value 1 is 280, which is not in the vocabulary of 280 tokens: give whole numbers from 0 to 279")]
    [InlineData("decode", "[0]\n[1, 1, -3]\n", "line 2: value 3 is -3, which is not in the vocabulary")]
    [InlineData("decode", "[0]\n[99999999999999999999]\n", "line 2: value 1 is 99999999999999999999, which is not in the vocabulary")]
    [InlineData("decode", "[0]\n[1, \"2\"]\n", "line 2: value 2 is \"2\", which is no number")]
    [InlineData("decode", "[0]\n[[1], 2]\n", "line 2: value 1 is [1], which is no number")]
    [InlineData("decode", "[0]\n[1, 2\n", "line 2: [1, 2 is not valid JSON", "give one JSON array of ids a line")]
    [InlineData("decode", "[0]\n1\n", "line 2: 1 is no JSON array")]
    public async Task A_bad_line_is_named_with_its_number_and_cure_and_what_came_before_it_stays(string verb, string input, params string[] says)
    {
        (int code, string output, string errors) = await RunAsync(input, verb, "--tokenizer", Ours);
        Assert.Equal(2, code);
        Assert.All(says, text => Assert.Contains(text, errors, StringComparison.Ordinal));
        Assert.DoesNotContain("   at ", errors, StringComparison.Ordinal);
        Assert.Equal(verb == "encode" ? $"[{string.Join(',', _trained.Value.Encode("the"))}]\n" : "\"<|endoftext|>\"\n", output);
    }

    [Fact]
    public async Task Lines_over_many_blocks_keep_their_order_and_a_bad_one_its_number()
    {
        Random random = new(5);
        // Longer than a block, too.
        string[] texts = [.. Enumerable.Range(0, 400).Select(i => string.Concat(Enumerable.Repeat("the cat ", i == 200 ? 300_000 : random.Next(2000))) + i)];
        string input = string.Concat(texts.Select(t => $"\"{t}\"\n"));
        Assert.True(input.Length > 4 << 20);
        (int code, string output, string errors) = await RunAsync(input + "oh\n" + input, "encode", "--tokenizer", Ours);
        Assert.Equal(2, code);
        Assert.Contains("line 401: oh", errors, StringComparison.Ordinal);
        string[] lines = output[..^1].Split('\n');
        Assert.Equal(texts.Length, lines.Length);
        for (int i = 0; i < texts.Length; i++) Assert.Equal(texts[i], _trained.Value.Decode(Ids(lines[i])));
    }

    [Fact]
    public async Task Each_line_is_answered_before_the_next_is_written()
    {
        using NopeGptProcess encode = new("tokenizer", "encode", "--tokenizer", Ours);
        string expected = "";
        foreach (string text in new[] { "the cat", "", "the hat and the mat" })
        {
            await encode.Input.WriteAsync(Encoding.UTF8.GetBytes($"\"{text}\"\n"));
            await encode.Input.FlushAsync();
            expected += $"[{string.Join(',', _trained.Value.Encode(text))}]\n";
            await encode.HasWrittenAsync(expected.Length);
            Assert.Equal(expected, encode.Output);
        }
        encode.Signal("INT");
        Assert.Equal(130, (await encode.EndAsync()).Code);
    }

    [Fact]
    public async Task It_ends_when_nobody_reads_any_more()
    {
        string program = Path.Combine(AppContext.BaseDirectory, "nopegpt");
        using Process shell = Process.Start(new ProcessStartInfo("bash", ["-c", $"yes '\"the cat\"' 2> /dev/null | '{program}' tokenizer encode --tokenizer '{Ours}' | head -n 1; exit ${{PIPESTATUS[1]}}"]) { RedirectStandardOutput = true, RedirectStandardError = true })!;
        using CancellationTokenSource limit = new(TimeSpan.FromSeconds(60));
        await shell.WaitForExitAsync(limit.Token);
        Assert.Equal((0, $"[{string.Join(',', _trained.Value.Encode("the cat"))}]\n", ""), (shell.ExitCode, await shell.StandardOutput.ReadToEndAsync(), await shell.StandardError.ReadToEndAsync()));
    }

    [Fact]
    public async Task A_tokenizer_that_is_not_there_is_named_with_those_that_are()
    {
        (int code, _, string errors) = await RunAsync("", "encode", "--tokenizer", "our", "--root", _folder["root"], "--tiktoken", "/no/such");
        Assert.Equal(2, code);
        foreach (string says in (string[])["--tokenizer = our: there is no such tokenizer (did you mean ours?): name one of r50k_base, p50k_base, cl100k_base, o200k_base, ours", "--tiktoken = /no/such: there is no such file"])
            Assert.Contains(says, errors, StringComparison.Ordinal);
        File.WriteAllText(_folder["damaged.json"], "{\"model\": 3}");
        (code, _, errors) = await RunAsync("", "decode", "--tokenizer", _folder["damaged.json"]);
        Assert.Equal(2, code);
        Assert.Contains(_folder["damaged.json"], errors, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", errors, StringComparison.Ordinal);
    }
}
