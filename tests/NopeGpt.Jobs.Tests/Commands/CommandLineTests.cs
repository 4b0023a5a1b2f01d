using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Commands;

public sealed class CommandLineTests
{
    private static Task<(int Code, string Output, string Errors)> RunAsync(params string[] arguments) => NopeGptProcess.RunAsync(arguments);

    [Theory]
    [InlineData]
    [InlineData("--help")]
    [InlineData("help")]
    public async Task The_help_lists_every_command(params string[] arguments)
    {
        (int code, string output, string errors) = await RunAsync(arguments);
        Assert.Equal((0, ""), (code, errors));
        foreach (string verb in new[] { "quickstart", "pretrain", "estimate", "train", "generate", "beam-search", "data", "tokenizer", "serve" }) Assert.Contains($"  {verb} ", output, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("generate", "--checkpoint", "--prompt", "--max_tokens", "[default: 200]", "--temperature", "[default: 0.9]", "--top_k", "[default: 500]", "--seed", "--device", "[default: auto]", "--json")]
    [InlineData("beam-search", "--checkpoint", "--prompt", "--num_candidates", "[default: 3]", "--beam_width", "[default: 16]", "--length_penalty", "[default: 1.0]", "--max_tokens", "--json")]
    [InlineData("quickstart", "--size", "--root")]
    [InlineData("pretrain", "--dataset <TEXT>", "--max_steps <N>", "default: 0]", "--queue", "--resume <ID>", "--json")]
    [InlineData("estimate", "--dataset <TEXT>", "--matrix_rate <X>", "--utilisation <X>", "--json")]
    [InlineData("train", "RUN_FOLDER", "--root", "--detached")]
    [InlineData("serve", "--root", "--socket", "--urls", "--idle_minutes", "--max_models", "[default: 3]")]
    [InlineData("data", "list", "inspect", "preview")]
    [InlineData("data inspect", "FILE", "--tokenizer", "--no_verify", "--raw, --raw_tokens", "--json")]
    [InlineData("data preview", "SOURCE", "--tokens", "--labels", "--count", "[default: 3]", "--seed", "[default: 1337]", "--json")]
    [InlineData("tokenizer", "train", "encode", "decode", "compare", "nopegpt tokenizer [command]")]
    [InlineData("tokenizer encode", "nopegpt tokenizer encode", "--tokenizer", "--special", "--tiktoken")]
    [InlineData("tokenizer train", "--input <FILES> (REQUIRED)", "--vocabulary_size", "--special_tokens", "[default: <|endoftext|>]", "--minimum_frequency", "[default: 0]", "--gpt2_words", "--columns", "--text_column", "--json")]
    [InlineData("tokenizer compare", "--tokenizers", "--max_bytes", "[default: 10000000]", "--json")]
    public async Task Each_command_has_a_help_with_its_options_and_defaults(string verb, params string[] says)
    {
        foreach (string[] arguments in new[] { [.. verb.Split(' '), "--help"], (string[])["help", .. verb.Split(' ')] })
        {
            (int code, string output, string errors) = await RunAsync(arguments);
            Assert.Equal((0, ""), (code, errors));
            Assert.All(says, word => Assert.Contains(word, output, StringComparison.Ordinal));
        }
    }

    [Theory]
    [InlineData("there is no command generat: did you mean generate?", "generat")]
    [InlineData("there is no command xyzzy", "xyzzy", "--root", "/tmp")]
    [InlineData("there is no command tokeniser: did you mean tokenizer? `nopegpt --help` lists the commands", "tokeniser", "encode")]
    [InlineData("there is no command encode: did you mean tokenizer encode?", "encode", "--tokenizer", "x")]
    [InlineData("there is no command tokenizer encod: did you mean encode? `nopegpt tokenizer --help` lists the commands", "tokenizer", "encod")]
    [InlineData("there is no option --special: `nopegpt tokenizer --help` lists the options", "tokenizer", "--special")]
    [InlineData("there is no option --specail: did you mean --special? `nopegpt tokenizer encode --help` lists the options", "tokenizer", "encode", "--tokenizer", "cl100k_base", "--specail")]
    [InlineData("there is no option --vocabulry_size: did you mean --vocabulary_size?", "tokenizer", "train", "--input", "a", "b", "--vocabulry_size", "300", "--out", "c")]
    [InlineData("there is no option --jsn: did you mean --json?", "inspect", "--jsn", "/")]
    [InlineData("there is no option --tmperature: did you mean --temperature?", "generate", "--checkpoint", "/", "--prompt", "a", "--tmperature", "1")]
    [InlineData("there is no option --max-tokns: did you mean --max_tokens?", "generate", "--checkpoint", "/", "--prompt", "a", "--max-tokns=5")]
    [InlineData("'there' belongs to no option", "generate", "--checkpoint", "/", "--prompt", "hello", "there")]
    [InlineData("Option '--prompt' is required", "generate", "--checkpoint", "/")]
    [InlineData("--min_p = 2: is out of range", "generate", "--checkpoint", "/", "--prompt", "a", "--min_p", "2")]
    [InlineData("--alternatives = 2: alternatives are printed with --json only", "generate", "--checkpoint", "/", "--prompt", "a", "--alternatives", "2")]
    [InlineData("--length_penalty = -1: is out of range", "beam-search", "--checkpoint", "/", "--prompt", "a", "--length_penalty", "-1")]
    [InlineData("--beam_width = 0: is out of range", "beam-search", "--checkpoint", "/", "--prompt", "a", "--beam-width=0")]
    [InlineData("--idle_minutes = soon: must be a number from 0 to 43200", "serve", "--idle-minutes", "soon")]
    [InlineData("--idle_minutes = NaN: must be a number from 0 to 43200", "serve", "--idle-minutes", "NaN")]
    [InlineData("--temperature = NaN: must be a number from 0 to 100", "generate", "--checkpoint", "/", "--prompt", "a", "--temperature", "NaN")]
    [InlineData("--temperature = -Infinity: must be a number from 0 to 100", "generate", "--checkpoint", "/", "--prompt", "a", "--temperature", "-Infinity")]
    [InlineData("--top_p = 1e999: must be a number above 0 and up to 1", "generate", "--checkpoint", "/", "--prompt", "a", "--top_p", "1e999")]
    [InlineData("--length_penalty = Infinity: must be a number from 0 to 10", "beam-search", "--checkpoint", "/", "--prompt", "a", "--length_penalty", "Infinity")]
    [InlineData("--strength = nan: must be a number from 0 to 1000", "merge", "/", "--adapter", "/", "--out", "/x", "--strength", "nan")]
    [InlineData("--utilisation = Infinity: must be a number from 0.001 to 1", "estimate", "--utilisation", "Infinity")]
    [InlineData("--learning_rate = NaN: must be a number from 1E-08 to 10", "pretrain", "--dataset", "/", "--learning_rate", "NaN")]
    [InlineData("--dropout = 1e999: must be a number", "pretrain", "--dataset", "/", "--dropout", "1e999")]
    [InlineData("--max_minutes = -Infinity: must be a number from 0", "pretrain", "--dataset", "/", "--max_minutes", "-Infinity")]
    [InlineData("--urls = http://0.0.0.0:80: give loopback addresses", "serve", "--urls", "http://0.0.0.0:80")]
    [InlineData("--device = tpu: give auto, cpu, cuda or cuda:N", "serve", "--device", "tpu")]
    public async Task A_mistake_is_named_with_its_cure_and_exit_code_2(string says, params string[] arguments)
    {
        (int code, string output, string errors) = await RunAsync(arguments);
        Assert.Equal((2, ""), (code, output));
        Assert.Contains(says, errors, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_group_by_itself_shows_its_help()
    {
        (int code, string output, string errors) = await RunAsync("tokenizer");
        Assert.Equal((0, ""), (code, errors));
        Assert.Equal((await RunAsync("tokenizer", "--help")).Output, output);
    }

    [Fact]
    public async Task Every_mistake_is_named_at_once()
    {
        (int code, _, string errors) = await RunAsync("generate", "--checkpoint", "/no/such", "--prompt", "a", "--temperature", "-1", "--top-p=2", "--seed", "x", "--max_tokens", "0", "--tempo", "3");
        Assert.Equal(2, code);
        foreach (string says in new[] { "/no/such: there is no such folder", "--temperature = -1", "--top_p = 2", "--seed = x", "--max_tokens = 0", "no option --tempo" })
            Assert.Contains(says, errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_storage_root_that_cannot_be_written_is_a_sentence()
    {
        using TemporaryFolder folder = new();
        await File.WriteAllTextAsync(folder["file"], "");
        (int code, _, string errors) = await RunAsync("serve", "--root", folder["file"]);
        Assert.Equal(6, code);
        Assert.Contains("the storage root", errors, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", errors, StringComparison.Ordinal);
    }
}
