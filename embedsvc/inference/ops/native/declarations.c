/* What operations.def lists, as text: Python builds its structs and its names of it when it loads the
   library, so nothing of that is written a second time there. */

#include <string.h>

#include "tape.h"

typedef struct {
    const char *name, *text;
    int64_t size; /* bytes of a struct; values of an enumeration */
} Declaration;

static const Declaration declarations[] = {
    {
        "Operand",
#define OPERAND_FIELD(type, name) #type " " #name ";"
#include "operations.def"
        , sizeof(Operand),
    },
    {
        "Instruction",
#define INSTRUCTION_FIELD(type, name) #type " " #name ";"
#include "operations.def"
        , sizeof(Instruction),
    },
    {
        "Buffer",
#define BUFFER_FIELD(type, name) #type " " #name ";"
#include "operations.def"
        , sizeof(Buffer),
    },
    {
        "Refusal",
#define REFUSAL_FIELD(type, name) #type " " #name ";"
#include "operations.def"
        , sizeof(Refusal),
    },
    {
        "Operation",
#define OPERATION(NAME, name, RULE, SCOPE) #name ";"
#include "operations.def"
        , OPERATIONS,
    },
    {
        "Scope", /* of each operation, in their order */
#define OPERATION(NAME, name, RULE, SCOPE) #SCOPE ";"
#include "operations.def"
        , OPERATIONS,
    },
    {
        "Activation",
#define ACTIVATION(NAME, name) #name ";"
#define OTHER_ACTIVATION(NAME, name) #name ";"
#include "operations.def"
        , ACTIVATIONS,
    },
    {
        "Read",
#define READ(NAME, name) #name ";"
#include "operations.def"
        , READS,
    },
    {
        "Source",
#define SOURCE(NAME, REASON) #NAME ";"
#include "operations.def"
        , SOURCES,
    },
    {
        "Kind",
#define KIND(NAME) #NAME ";"
#include "operations.def"
        , KINDS,
    },
    {
        "Reason",
#define REASON(NAME) #NAME ";"
#include "operations.def"
        , REASONS,
    },
};

/* The fields of a struct ("int64_t width;int64_t kind;") or the values of an enumeration, and its
   size; NULL if there is none of that name. */
API const char *embedsvc_declaration(const char *name, int64_t *size) {
    for (int64_t i = 0; i < COUNT(declarations); i++) {
        if (strcmp(declarations[i].name, name)) continue;
        *size = declarations[i].size;
        return declarations[i].text;
    }
    return NULL;
}

/* The version of the functions that Python calls; it asks for this before anything else. */
API int64_t embedsvc_abi(void) { return ABI; }
