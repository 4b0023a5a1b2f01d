using System.Text;
using System.Text.Json.Nodes;

namespace NopeGpt.Model.Tests;

/// <summary>Damage to a config.json: to its values, its keys, its text and its bytes.</summary>
internal static class ConfigMutation
{
    private static readonly string[] Odd =
    [
        "null", "0", "-1", "1", "2", "3", "16", "1.5", "1e999", "-0.0", "1000000", "16777216", "2147483647", "2147483648", "9223372036854775808", "true", "false", "\"\"", "\"silu\"", "\"\\ud800\"",
        "\"learned\"", "\"layer_norm\"", "[]", "[1]", "[[[[[[[[]]]]]]]]", "{}", "{\"rope_type\": \"default\"}", "{\"a\": {\"b\": 1}}", "1e-400", "0.5", "4096", "65536",
    ];

    public static byte[] Of(string text, Random random)
    {
        byte[] bytes;
        switch (random.Next(6))
        {
            case 0:
                bytes = Encoding.UTF8.GetBytes(text);
                for (int n = random.Next(1, 5); n > 0; n--) bytes[random.Next(bytes.Length)] = (byte)random.Next(256);
                return bytes;
            case 1:
                bytes = Encoding.UTF8.GetBytes(text);
                return random.Next(2) == 0 ? bytes[..random.Next(bytes.Length)] : [.. bytes, .. bytes];
            default:
                JsonObject json = JsonNode.Parse(text)!.AsObject();
                List<(string Key, string Value)> pairs = [.. json.Select(p => (p.Key, p.Value?.ToJsonString() ?? "null"))];
                for (int n = random.Next(1, 3); n > 0; n--)
                {
                    int at = random.Next(pairs.Count);
                    switch (random.Next(6))
                    {
                        case 0 when pairs.Count > 1: pairs.RemoveAt(at); break;
                        case 1: pairs.Add(pairs[at]); break;
                        case 2: pairs[at] = (pairs[at].Key + "x", pairs[at].Value); break;
                        case 3: pairs.Add(("\\ud800", "1")); break;
                        default: pairs[at] = (pairs[at].Key, Odd[random.Next(Odd.Length)]); break;
                    }
                }
                return Encoding.UTF8.GetBytes("{" + string.Join(", ", pairs.Select(p => $"\"{p.Key}\": {p.Value}")) + "}");
        }
    }
}
